"""Color images with more than 8 bits per channel, which Pillow would cut to 8 bits, and TIFF files it cannot open."""

import math
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt.core.optional import import_optional

_PNG_DEEP_COLORS = (b"\x10\x02", b"\x10\x04", b"\x10\x06")  # bit depth 16 of RGB, of gray with alpha, of RGB with alpha
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 258, 277  # tags of TIFF
_RGB = 2  # of the TIFF tag for the meaning of the channels
_ALPHA = (1, 2)  # of the TIFF tag for channels beyond the colors


class NoColorsError(ValueError):
    """A TIFF file whose channels are no colors. The message is the reason."""


@dataclass(frozen=True)
class DeepColors:
    """Pixels of a color image.

    Attributes:
        values: Red, green and blue as they are stored (height, width, 3).
        alpha: Opacity between 0 and 1 (height, width), or None for an opaque image.
        notes: A note on channels that are left out, if there are any.
    """

    values: NDArray[Any]
    alpha: NDArray[np.float64] | None
    notes: tuple[str, ...] = ()


def read_deep_colors(file: IO[bytes], image: Image.Image | None) -> DeepColors | None:
    """Read a color image with more than 8 bits per channel.

    Args:
        file: The file.
        image: The image as Pillow opens it, or None if it cannot.

    Returns:
        The pixels; None for any other image.

    Raises:
        NoColorsError: The channels of a TIFF file that Pillow cannot open are no colors.
        VptError: The extra `deep` is not installed.
    """
    file.seek(0)
    head = file.read(26)
    file.seek(0)
    if head.startswith(b"\x89PNG") and head[24:26] in _PNG_DEEP_COLORS:
        return _read_png(file.read())
    if head.startswith(_TIFF_STARTS) and (image is None or _is_deep_tiff(image)):
        return _read_tiff(file)
    return None


def channel_notes(image: Image.Image) -> tuple[str, ...]:
    """Return a note on the channels of a TIFF file that Pillow leaves out, if there are any.

    Args:
        image: The image as Pillow opens it.

    Returns:
        At most one note.
    """
    num_bands = len(image.getbands())
    return _notes_on_channels(int(getattr(image, "tag_v2", {}).get(_SAMPLES_PER_PIXEL, 0)), num_bands)


def _notes_on_channels(found: int, used: int) -> tuple[str, ...]:
    note = f"{found} channels, of which the first {used} are used, as they are the colors of the file"
    return (note,) if found > used else ()


def _is_deep_tiff(image: Image.Image) -> bool:
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (1,))
    return len(image.getbands()) > 1 and max(bits) > 8


def _read_png(data: bytes) -> DeepColors:
    imagecodecs = import_optional("imagecodecs", "deep", "a PNG image with 16 bits per channel in color")
    values = imagecodecs.png_decode(data)
    channels = values.shape[2]
    alpha = values[..., -1] / 65535 if channels in (2, 4) else None
    return DeepColors(values[..., :3] if channels > 2 else values[..., [0, 0, 0]], alpha)


def _read_tiff(file: IO[bytes]) -> DeepColors:
    tifffile = import_optional("tifffile", "deep", "a TIFF image with more than 8 bits per channel in color")
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        if page.imagelength * page.imagewidth > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise Image.DecompressionBombError
        values, is_rgb, extra = page.asarray(), page.photometric == _RGB, tuple(page.extrasamples)
        if page.planarconfig == 2 and values.ndim == 3:  # one plane after the other
            values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] < 3 or not is_rgb:
        shape = " x ".join(map(str, values.shape))
        raise NoColorsError(
            f"a TIFF file of {shape} values whose channels are not red, green and blue; write the channels that "
            "matter as an RGB or a gray image, such as with tifffile"
        )
    has_alpha = bool(extra) and extra[0] in _ALPHA
    alpha = values[..., 3] / np.iinfo(values.dtype).max if has_alpha and values.dtype.kind == "u" else None
    return DeepColors(values[..., :3], alpha, _notes_on_channels(values.shape[2], 4 if has_alpha else 3))
