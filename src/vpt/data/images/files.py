"""Image files of common formats, decoded to Pillow images: RGB, upright, 8 bits per channel, opaque.

Transparent pixels are blended with white. Values with more than 8 bits are scaled. Float images are in 0..1 or 0..255.
A value range replaces these ranges; images with 8 bits stay as they are.
The first frame of a file with several frames (GIF, WebP, APNG, TIFF) is used. Color profiles are not applied.
"""

import io
import math
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vpt.core.foreign_files import describe_foreign_name
from vpt.core.optional import import_optional
from vpt.data.images.deep_colors import (
    SEVERAL_FRAMES,
    DeepColors,
    NoColorsError,
    channel_notes,
    gray_values,
    read_deep_colors,
)
from vpt.data.images.unidentified import describe_unidentified
from vpt.data.images.value_range import ValueRange, scale_to_uint8
from vpt.errors import VptError

LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")

# Raster formats only. Pillow opens more, such as EPS, for which it starts another program.
_FORMATS = {
    "AVIF": ".avif .avifs",
    "BMP": ".bmp .dib",
    "DIB": "",
    "GIF": ".gif",
    "HEIF": ".heic .heif .hif",
    "JPEG": ".jpg .jpeg .jpe .jfif",
    "JPEG2000": ".jp2 .j2k .jpx",
    "MPO": ".mpo",
    "PNG": ".png .apng",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "QOI": ".qoi",
    "TIFF": ".tif .tiff",
    "WEBP": ".webp",
}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in _FORMATS.values() for suffix in suffixes.split())


def suffix_for_format(format_name: str | None) -> str:
    """Return the usual suffix of a format.

    Args:
        format_name: Pillow's name of the format, such as "PNG". Unsupported formats raise KeyError.

    Returns:
        The suffix, such as ".png".
    """
    return _FORMATS[format_name or ""].split()[0]


_ORIENTATION = 0x0112  # tag of EXIF data
MIN_IMAGE_SIDE = 8  # pixels; smaller files are tracking pixels or placeholders

_thread_state = threading.local()
_capture_lock = threading.Lock()


class UnreadableImageError(Exception):
    """An image that cannot be used. The message is the reason, without the name of the image."""


@contextmanager
def capture_warnings() -> Iterator[None]:
    """Collect Pillow's warnings as notes on the image that caused them, for `open_rgb` in any number of threads.

    `warnings.catch_warnings` changes global state, so threads must not enter it concurrently. This context is entered
    once, outside the threads, and assigns each warning to the thread that caused it. Warnings from other modules and
    threads are shown as usual.
    """
    with _capture_lock, warnings.catch_warnings():
        warnings.filterwarnings("always", module=r"PIL\.|vpt\.data\.image_files$")
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
        original_showwarning = warnings.showwarning

        def showwarning(message: Warning | str, *args: Any, **options: Any) -> None:
            notes = getattr(_thread_state, "notes", None)
            if notes is None:
                original_showwarning(message, *args, **options)
            else:
                notes.append(str(message))

        warnings.showwarning = showwarning
        try:
            yield
        finally:
            warnings.showwarning = original_showwarning


def open_rgb(path: Path, value_range: ValueRange | None = None) -> tuple[Image.Image, list[str]]:
    """Decode an image file. Call it inside `capture_warnings`.

    Args:
        path: The image file.
        value_range: Values of black and white in images with more than 8 bits. Default: the range of their type.

    Returns:
        The RGB image, and notes about irregularities of the file.

    Raises:
        UnreadableImageError: The file is missing, is not a regular file, or is not an image that can be used.
    """
    foreign = describe_foreign_name(path.name)  # a raw camera file can be a TIFF file with a preview
    try:
        status = path.stat()
        if foreign is not None and path.exists():
            raise UnreadableImageError(f"not an image of a known format but {foreign}")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe blocks
            raise UnreadableImageError("a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        if not status.st_size:
            raise UnreadableImageError("empty (0 bytes)")
        with path.open("rb") as file:
            return _decode(file, value_range)
    except FileNotFoundError:
        raise UnreadableImageError("a link to a missing file" if path.is_symlink() else "no such file") from None
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error


def read_rgb(data: bytes, value_range: ValueRange | None = None) -> Image.Image:
    """Decode the bytes of an image file. Pillow's warnings are shown as usual.

    Args:
        data: Contents of the file.
        value_range: Values of black and white in images with more than 8 bits. Default: the range of their type.

    Returns:
        The RGB image.

    Raises:
        UnreadableImageError: The bytes are not an image that can be used.
    """
    if not data:
        raise UnreadableImageError("empty (0 bytes)")
    return _decode(io.BytesIO(data), value_range)[0]


def _decode(file: IO[bytes], value_range: ValueRange | None) -> tuple[Image.Image, list[str]]:
    notes: list[str] = []
    _thread_state.notes = notes
    try:
        return _open_image(file, value_range, notes), notes
    except (UnreadableImageError, VptError):  # of which the second names a missing extra
        raise
    except NoColorsError as error:
        raise UnreadableImageError(str(error)) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UnreadableImageError(
            f"more than {Image.MAX_IMAGE_PIXELS} pixels, which may exhaust memory; scale it down"
        ) from None
    except Exception as error:  # Pillow raises any kind of error on damaged files
        system_error = getattr(error, "strerror", None)  # set for errors of the system, not of the decoder
        raise UnreadableImageError(system_error or f"damaged: {str(error) or type(error).__name__}") from error
    finally:
        _thread_state.notes = None


def _open_image(file: IO[bytes], value_range: ValueRange | None, notes: list[str]) -> Image.Image:
    """Open an image, and raise any error for one that cannot be used."""
    try:
        opened = Image.open(file, formats=supported_formats())
    except UnidentifiedImageError:
        try:
            deep = read_deep_colors(file, None)
        except VptError as error:  # an extra is missing for what may as well be a damaged file
            raise UnreadableImageError(str(error)) from None
        if deep is None:
            raise UnreadableImageError(describe_unidentified(file, supported_formats())) from None
        return to_rgb(_from_deep_colors(deep, value_range, notes), notes)
    with opened as image:
        require_min_side(*image.size)
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise Image.DecompressionBombError
        # The second image of an MPO file is a depth map or a preview, not a frame.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            notes.append(SEVERAL_FRAMES)
        if (deep := read_deep_colors(file, image)) is not None:
            return to_rgb(_from_deep_colors(deep, value_range, notes), notes)
        image.load()
        notes += channel_notes(image)
        return to_rgb(image, notes, value_range)


def _from_deep_colors(deep: DeepColors, value_range: ValueRange | None, notes: list[str]) -> Image.Image:
    """Return an image with 8 bits per channel, and the orientation in its EXIF data."""
    require_min_side(deep.values.shape[1], deep.values.shape[0])
    notes += [note for note in deep.notes if note not in notes]
    values = deep.values if deep.values.dtype == np.uint8 else _scale(deep.values, value_range)
    if values.shape[2] == 1:
        values = values.repeat(3, axis=2)
    if deep.alpha is not None:
        values = np.concatenate([values, np.rint(255 * deep.alpha).astype(np.uint8)[..., None]], axis=2)
    image = Image.fromarray(np.ascontiguousarray(values))
    image.getexif()[_ORIENTATION] = deep.orientation
    return image


def require_min_side(width: int, height: int) -> None:
    """Refuse images that are too small.

    Args:
        width: Width in pixels.
        height: Height in pixels.

    Raises:
        UnreadableImageError: A side is less than `MIN_IMAGE_SIDE`.
    """
    if min(width, height) < MIN_IMAGE_SIDE:
        raise UnreadableImageError(f"only {width} x {height} px; each side needs {MIN_IMAGE_SIDE}")


def encode_png(image: Image.Image) -> bytes:
    """Return an image as the bytes of a PNG file.

    Args:
        image: The image.

    Returns:
        The bytes.
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@cache
def supported_formats() -> tuple[str, ...]:
    """Return the formats that the installed Pillow can decode.

    Returns:
        Pillow's names of the formats.
    """
    Image.init()
    with suppress(VptError):  # reading a HEIC image names the extra
        import_optional("pillow_heif", "heif", "a HEIC image").register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)  # Pillow can be built without some formats


def to_rgb(image: Image.Image, notes: list[str] | None = None, value_range: ValueRange | None = None) -> Image.Image:
    """Return a decoded image as an upright RGB image with 8 bits per channel.

    Pixels outside the range of their type raise UnreadableImageError, unless a value range is given.

    Args:
        image: An image of any mode, which stays as it is.
        notes: Receives a note if the EXIF data cannot be read.
        value_range: Values of black and white in images with more than 8 bits. Default: the range of their type.

    Returns:
        The RGB image, without transparency.
    """
    image.load()  # PNG keeps the orientation after the pixels
    upright = image
    try:
        if image.getexif().get(_ORIENTATION, 1) != 1:
            upright = ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises any kind of error on damaged data; the pixels are sound
        if notes is not None:
            notes.append("EXIF data that cannot be read")
    if has_deep_pixels(upright):
        return Image.fromarray(_scale(gray_values(upright, image), value_range)).convert("RGB")
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return upright.convert("RGB")


def has_deep_pixels(image: Image.Image) -> bool:
    """Return True for a gray image with more than 8 bits per pixel, or with floats."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _scale(stored: NDArray[Any], value_range: ValueRange | None) -> NDArray[np.uint8]:
    """Return values with more than 8 bits as uint8 of the same shape, scaled from a range or that of their type."""
    values = stored.astype(np.float64)
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise UnreadableImageError("float pixels that are NaN or infinite; save it with 8 or 16 bits")
    if value_range is not None:
        return scale_to_uint8(values, value_range)
    is_integer = stored.dtype.kind != "f"
    max_value = 65535 if is_integer else (1 if high <= 1 else 255)  # older Pillow opens 16-bit PNG as "I"
    if low < 0 or high > max_value:
        allowed = "0..65535" if is_integer else "0..1 or 0..255"
        raise UnreadableImageError(
            f"pixels from {low:g} to {high:g}, outside {allowed}; save it with 8 or 16 bits, or name the values of "
            "black and white: --value-range LOW,HIGH"
        )
    return np.rint(values * (255 / max_value)).astype(np.uint8)
