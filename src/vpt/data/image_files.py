"""One image file of any common kind -> a Pillow image in RGB, upright, eight bits, no transparency.

Transparent pixels are laid over white. Sixteen bits are scaled to eight. A float image holds 0..1 or 0..255.
Of several frames (GIF, WebP, APNG, TIFF) the first is used. Colour profiles are not applied.
"""

from __future__ import annotations

import io
import math
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

# Plain raster formats only. Pillow would open more, among them EPS, for which it starts another program.
_FORMATS = {
    "AVIF": ".avif .avifs",
    "BMP": ".bmp .dib",
    "DIB": "",
    "GIF": ".gif",
    "JPEG": ".jpg .jpeg .jpe .jfif",
    "JPEG2000": ".jp2 .j2k .jpx",
    "MPO": ".mpo",
    "PNG": ".png .apng",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "QOI": ".qoi",
    "TIFF": ".tif .tiff",
    "WEBP": ".webp",
}
SUFFIXES = frozenset(suffix for suffixes in _FORMATS.values() for suffix in suffixes.split())


def suffix_of(kind: str | None) -> str:
    """How a file of Pillow's format `kind` ends, such as ".png". Raises KeyError for a format that is not taken."""
    return _FORMATS[kind or ""].split()[0]


MIN_SIDE = 8  # pixels; anything smaller is a tracking pixel or a placeholder, not a picture

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ear = threading.local()
_one_listener = threading.Lock()


class BadImage(Exception):
    """An image that cannot be used; the text says why."""


@contextmanager
def listening() -> Iterator[None]:
    """Around `open_rgb`, in however many threads: what Pillow warns of becomes a remark on the image.

    `warnings.catch_warnings` swaps state of the whole process: threads must not enter it side by side. Here
    it is entered once, outside them, and each warning goes to the thread that caused it. Warnings from other
    modules and from other threads take their usual way.
    """
    with _one_listener, warnings.catch_warnings():
        warnings.filterwarnings("always", module=r"PIL\.|vpt\.data\.rgb$")
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, *rest: Any, **more: Any) -> None:
            remarks = getattr(_ear, "remarks", None)
            if remarks is None:
                usual(message, *rest, **more)
            else:
                remarks.append(str(message))

        warnings.showwarning = show
        try:
            yield
        finally:
            warnings.showwarning = usual


def open_rgb(path: Path) -> tuple[Image.Image, list[str]]:
    """The image, and remarks on what is odd about it. Inside `listening` only. Raises BadImage."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise BadImage("a link to a file that is not there" if path.is_symlink() else "no such file") from None
    except OSError as error:
        raise BadImage(error.strerror or str(error)) from error
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise BadImage("a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
    if not status.st_size:
        raise BadImage("empty (0 bytes)")

    try:
        with path.open("rb") as file:
            return _decoded(file)
    except OSError as error:
        raise BadImage(error.strerror or str(error)) from error


def read_rgb(data: bytes) -> Image.Image:
    """The image in the bytes of a file. Outside `listening`: Pillow's warnings go their usual way. Raises BadImage."""
    if not data:
        raise BadImage("empty (0 bytes)")
    return _decoded(io.BytesIO(data))[0]


def _decoded(file: IO[bytes]) -> tuple[Image.Image, list[str]]:
    _ear.remarks = remarks = []
    try:
        with Image.open(file, formats=formats()) as image:
            if min(image.size) < MIN_SIDE:
                raise BadImage(f"only {image.width} x {image.height} px; each side needs {MIN_SIDE}")
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError
            # The second image of an MPO file is a depth map or a preview that cameras add, not a frame.
            if getattr(image, "is_animated", False) and image.format != "MPO":
                remarks.append("several frames or pages, of which the first is used")
            image.load()
            turn = _UPRIGHT.get(_orientation(image, remarks))
            rgb = _to_rgb(image)
            return (rgb.transpose(turn) if turn is not None else rgb), remarks
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage(f"not an image of a known format ({', '.join(formats())})") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise BadImage(f"more than {Image.MAX_IMAGE_PIXELS} pixels, too large to be safe; scale it down") from None
    except Exception as error:  # on damaged files Pillow raises whatever its decoders stumble over
        refused = getattr(error, "strerror", None)  # set where the system, not the decoder, gave up
        raise BadImage(refused or f"damaged: {str(error) or type(error).__name__}") from error
    finally:
        _ear.remarks = None


@cache
def formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)  # Pillow may be built without some


def _orientation(image: Image.Image, remarks: list[str]) -> int:
    """The EXIF orientation, 1 where there is none. Reading it late matters: PNG keeps it after the pixels."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as above; and the pixels are sound
        remarks.append("EXIF data that cannot be read, taken as upright")
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, "white")
        return Image.alpha_composite(white, colour).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A grey image of more than eight bits -> uint8 (height, width), by the range its type stands for."""
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise BadImage("float pixels that are NaN or infinite")
    whole = image.mode != "F"
    top = 65535 if whole else (1 if high <= 1 else 255)  # older Pillow opens 16-bit PNG as "I"
    if low < 0 or high > top:
        allowed = "0..65535" if whole else "0..1 or 0..255"
        raise BadImage(f"pixels from {low:g} to {high:g}, outside {allowed}; save it with 8 or 16 bits")
    return np.rint(values * (255 / top)).astype(np.uint8)
