"""Images with more than 8 bits per channel: colors, which Pillow would cut to 8 bits, and TIFF files it misreads."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt.core.optional import import_optional

SEVERAL_FRAMES = "several frames or pages, of which the first is used"
_PNG_DEEP_COLORS = (b"\x10\x02", b"\x10\x04", b"\x10\x06")  # bit depth 16 of RGB, of gray with alpha, of RGB with alpha
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274  # tags of TIFF, of which EXIF data have the last, too
_SAMPLES_PER_PIXEL, _SAMPLE_FORMAT = 277, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # of the tag for the meaning of the channels
_ASSOCIATED, _UNASSOCIATED = 1, 2  # of the tag for channels beyond the colors: alpha that colors contain, or do not


class NoColorsError(ValueError):
    """A TIFF file whose channels are no colors. The message is the reason."""


@dataclass(frozen=True)
class DeepColors:
    """Pixels of an image.

    Attributes:
        values: Red, green and blue (height, width, 3), or gray (height, width, 1), larger where it is brighter.
        alpha: Opacity between 0 and 1 (height, width), or None for an opaque image.
        notes: Notes on what is left out, if there is something.
        orientation: EXIF orientation, 1 for upright.
    """

    values: NDArray[Any]
    alpha: NDArray[np.float64] | None
    notes: tuple[str, ...] = ()
    orientation: int = 1


def read_deep_colors(file: IO[bytes], image: Image.Image | None) -> DeepColors | None:
    """Read a color image with more than 8 bits per channel, or a TIFF file that Pillow cannot open.

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
        deep = _read_png(file.read())
        return deep if image is None else replace(deep, orientation=image.getexif().get(_ORIENTATION, 1))
    if head.startswith(_TIFF_STARTS) and (image is None or _is_deep_tiff(image)):
        return _read_tiff(file)
    return None


def gray_values(image: Image.Image, opened: Image.Image | None = None) -> NDArray[Any]:
    """Return the values of a gray image with more than 8 bits, larger where it is brighter.

    Pillow takes the unsigned values of a TIFF file with 32 bits for signed ones and, where black and white are
    exchanged, exchanges them back in 8 bits alone.

    Args:
        image: The image.
        opened: The image as Pillow opens it, which has the tags of the file, if `image` is a turned copy. Default:
            `image`.

    Returns:
        The values (height, width).
    """
    tags, values = getattr(opened or image, "tag_v2", {}), np.asarray(image)
    bits = tags.get(_BITS_PER_SAMPLE, (0,))
    if image.mode == "I" and bits == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,):
        values = values.view(np.uint32)
    return _brightness(values, bits[0]) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else values


def tiff_orientation(path: Path) -> int:
    """Return the orientation of a TIFF file that Pillow cannot open.

    Args:
        path: The file.

    Returns:
        The EXIF orientation, 1 for upright.
    """
    tifffile = import_optional("tifffile", "deep", "a TIFF image that Pillow cannot open")
    with tifffile.TiffFile(path) as tiff:
        return _orientation_of(tiff.pages[0])


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
    return DeepColors(values[..., :3] if channels > 2 else values[..., :1], alpha)


def _read_tiff(file: IO[bytes]) -> DeepColors:
    tifffile = import_optional("tifffile", "deep", "a TIFF image with more than 8 bits per channel in color")
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        if page.imagelength * page.imagewidth > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise Image.DecompressionBombError
        values, meaning, bits = page.asarray(), page.photometric, page.bitspersample
        extra, orientation = tuple(page.extrasamples), _orientation_of(page)
        notes = [SEVERAL_FRAMES] * (len(tiff.pages) > 1)
        if page.planarconfig == 2 and values.ndim == 3:  # one plane after the other
            values = values.transpose(1, 2, 0)
    shape = " x ".join(map(str, values.shape))
    values = values[..., None] if values.ndim == 2 else values
    has_alpha = bool(extra) and extra[0] in (_ASSOCIATED, _UNASSOCIATED)
    is_gray = meaning in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and values.shape[-1] == 1 + has_alpha
    is_color = meaning == _RGB and values.shape[-1] >= 3 + has_alpha
    if values.ndim != 3 or values.dtype.kind not in "uif" or not (is_gray or is_color):
        raise NoColorsError(
            f"a TIFF file of {shape} values whose channels are not red, green and blue; write the channels that "
            "matter as an RGB or a gray image, such as with tifffile"
        )
    num_colors = 1 if is_gray else 3
    colors = values[..., :num_colors]
    alpha = _opacity(values[..., num_colors], bits) if has_alpha else None
    if alpha is not None and extra[0] == _ASSOCIATED:
        colors = _without_alpha(colors, alpha, bits)
    if meaning == _WHITE_IS_ZERO:
        colors = _brightness(colors, bits)
    notes += _notes_on_channels(values.shape[2], num_colors + has_alpha)
    return DeepColors(colors, alpha, tuple(notes), orientation)


def _orientation_of(page: Any) -> int:
    """Return the orientation of a page of tifffile."""
    value = page.tags.valueof(_ORIENTATION)
    return value if value in range(1, 9) else 1


def _largest(values: NDArray[Any], bits: int) -> int:
    """Return the largest value of a number of bits; of floats, which are in 0..1 or 0..255, the end of their range."""
    if values.dtype.kind == "f":
        return 1 if values.max() <= 1 else 255
    return int((1 << bits - (values.dtype.kind == "i")) - 1)


def _brightness(values: NDArray[Any], bits: int) -> NDArray[Any]:
    """Return values of which 0 is white as values of which 0 is black."""
    unbounded = values.astype(np.int64) if values.dtype.kind == "i" else values
    brightness: NDArray[Any] = _largest(values, bits) - unbounded
    return brightness


def _opacity(stored: NDArray[Any], bits: int) -> NDArray[np.float64]:
    alpha: NDArray[np.float64] = stored.astype(np.float64) / _largest(stored, bits)
    if not (alpha.min() >= 0 and alpha.max() <= 1):  # true for NaN, too
        raise NoColorsError(
            f"a TIFF file whose opacity is from {stored.min():g} to {stored.max():g}, outside 0..1 and 0..255; write "
            "it again without an alpha channel"
        )
    return alpha


def _without_alpha(colors: NDArray[Any], alpha: NDArray[np.float64], bits: int) -> NDArray[Any]:
    """Return colors that were stored times their opacity."""
    opacity = alpha[..., None]
    divided: NDArray[Any] = np.divide(colors, opacity, out=np.zeros(colors.shape), where=opacity > 0)
    largest = _largest(colors, bits)
    if colors.max() <= largest:  # which the quotient of rounded values may exceed
        divided = divided.clip(None, largest)
    return divided if colors.dtype.kind == "f" else np.rint(divided).astype(colors.dtype)
