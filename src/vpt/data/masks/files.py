"""Files of masks: their ids, upright as their image."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vpt.data.decoding.arrays import map_images
from vpt.data.images.deep_colors import tiff_orientation
from vpt.data.images.files import LOSSY_FORMATS, UnreadableImageError, open_rgb, supported_formats
from vpt.data.images.value_range import ValueRange
from vpt.data.masks.layouts import ImageMaskPairs
from vpt.data.masks.schemes import IGNORE_INDEX

Orientation = Literal["auto", "upright", "stored"]

_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class MaskFormat:
    """The reading of mask files.

    Args:
        colors: True if the color of a pixel is its id, red * 65536 + green * 256 + blue. Default: False.
        nearest: Ids that values of lossy files (JPEG) are rounded to. Default: none, values are ids.
        orientation: Where EXIF data turn an image otherwise than its mask: drawn "upright", as viewers show both, on
            the pixels as "stored", or "auto" for what the sizes prove. Default: "auto".
    """

    colors: bool = False
    nearest: tuple[int, ...] = ()
    orientation: Orientation = "auto"


@dataclass(frozen=True)
class MaskStats:
    """Ids of a mask.

    Args:
        ids: Distinct ids, sorted.
        counts: Number of pixels of each id.
        key: Shape and hash of the image and of the mask.
        peak: Largest value of a pixel of the image, in 0..255.
        size: Width and height in pixels.
        proves: The orientation that the sizes prove, "auto" if both fit, or None where EXIF data turn the image and the
            mask alike.
        palette: Colors of an indexed mask, else nothing.
        is_lossy: True for a JPEG and the like.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    key: str
    peak: int = 255
    size: tuple[int, int] = (0, 0)
    proves: Orientation | None = None
    palette: bytes = b""
    is_lossy: bool = False


@dataclass(frozen=True)
class _MaskFile:
    """Ids of a mask file as stored, and what its header says."""

    ids: NDArray[np.int64]
    palette: bytes
    is_lossy: bool
    orientation: int


def load_pair(
    pairs: ImageMaskPairs,
    index: int,
    lookup_table: NDArray[np.int16],
    mask_format: MaskFormat | None = None,
    value_range: ValueRange | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image and its mask, both upright. Call it inside `capture_warnings`.

    Args:
        pairs: Image and mask files.
        index: Index of the pair.
        lookup_table: int16 (65536,), id to class, see `LabelScheme.lookup_table`.
        mask_format: The reading of masks; the ids of colors are their positions in `nearest`. Default: ids.
        value_range: Values of black and white in images with more than 8 bits. Default: the range of their type.

    Returns:
        The image, uint8 (3, height, width), and its classes, uint8 (height, width), IGNORE_INDEX for no class.
    """
    mask_format = mask_format or MaskFormat()
    image, mask, _ = _read_pair(pairs.images[index], pairs.masks[index], mask_format, value_range)
    pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    return pixels, _classes(mask, lookup_table, mask_format)


def load_mask(path: Path, lookup_table: NDArray[np.int16], mask_format: MaskFormat | None = None) -> NDArray[np.uint8]:
    """Return a mask as it is stored, whichever way its image is turned. Call it inside `capture_warnings`.

    Args:
        path: The mask file.
        lookup_table: As for `load_pair`.
        mask_format: As for `load_pair`.

    Returns:
        Classes, uint8 (height, width), IGNORE_INDEX for no class.
    """
    mask_format = mask_format or MaskFormat()
    return _classes(_read_mask(path, mask_format), lookup_table, mask_format)


def _classes(mask: _MaskFile, lookup_table: NDArray[np.int16], mask_format: MaskFormat) -> NDArray[np.uint8]:
    ids = np.searchsorted(mask_format.nearest, mask.ids) if mask_format.colors else mask.ids
    return lookup_table[ids].astype(np.uint8)


def count_classes(
    stats: MaskStats, lookup_table: NDArray[np.int16], mask_format: MaskFormat, num_classes: int
) -> NDArray[np.int64]:
    """Return the number of pixels of each class in a mask. Its ids must be known.

    Args:
        stats: Ids of the mask.
        lookup_table: As for `load_pair`.
        mask_format: As for `load_pair`.
        num_classes: Number of classes.

    Returns:
        int64 (classes,).
    """
    classes = lookup_table[np.searchsorted(mask_format.nearest, stats.ids) if mask_format.colors else stats.ids]
    counts, labeled = np.zeros(num_classes, np.int64), classes != IGNORE_INDEX
    np.add.at(counts, classes[labeled], stats.counts[labeled])
    return counts


def scan_masks(
    splits: Iterable[ImageMaskPairs],
    mask_format: MaskFormat,
    faults: list[str],
    progress: Callable[[int, int], None] | None,
    value_range: ValueRange | None = None,
) -> dict[str, MaskStats]:
    """Decode all images and masks once.

    Args:
        splits: Pairs of each split.
        mask_format: The reading of masks.
        faults: Receives the images and masks that cannot be used.
        progress: Called as (done, total) after each pair.
        value_range: Values of black and white in images with more than 8 bits. Default: the range of their type.

    Returns:
        Name of the pair to the ids of its mask.
    """

    def scan_pair(pair: tuple[str, Path, Path]) -> MaskStats | str:
        name, image_path, mask_path = pair
        try:
            image, mask, proves = _read_pair(image_path, mask_path, mask_format, value_range)
        except UnreadableImageError as error:
            return f"{name}: {error}"
        pixels = np.asarray(image)
        values, counts = np.unique(mask.ids, return_counts=True)
        key = hashlib.sha256(pixels.tobytes() + mask.ids.tobytes()).hexdigest()
        return MaskStats(
            values,
            counts,
            f"{mask.ids.shape} {key}",
            int(pixels.max()),
            image.size,
            proves,
            mask.palette,
            mask.is_lossy,
        )

    scanned = [pair for pairs in splits for pair in zip(pairs.names, pairs.images, pairs.masks, strict=True)]
    mask_stats: dict[str, MaskStats] = {}
    for (name, _, _), stats in zip(scanned, map_images(scan_pair, scanned, progress), strict=True):
        if isinstance(stats, str):
            faults.append(stats)
        else:
            mask_stats[name] = stats
    return mask_stats


def _read_pair(
    image_path: Path, mask_path: Path, mask_format: MaskFormat, value_range: ValueRange | None
) -> tuple[Image.Image, _MaskFile, Orientation | None]:
    """Return an image and its mask, both upright, and what the sizes prove, as in `MaskStats.proves`."""
    image, _ = open_rgb(image_path, value_range)
    mask = _read_mask(mask_path, mask_format)
    turns: dict[Orientation, int] = {"upright": mask.orientation, "stored": _orientation(image_path)}
    if turns["upright"] == turns["stored"]:
        return image, _turned(mask, turns["upright"], image), None
    size = mask.ids.shape[::-1]
    fitting = [reading for reading, turn in turns.items() if (size[::-1] if turn >= 5 else size) == image.size]
    proves: Orientation = fitting[0] if len(fitting) == 1 else "auto"
    is_stored = (mask_format.orientation if proves == "auto" else proves) == "stored"
    return image, _turned(mask, turns["stored" if is_stored else "upright"], image), proves


def _turned(mask: _MaskFile, orientation: int, image: Image.Image) -> _MaskFile:
    """Return a mask turned as EXIF data say. Raise UnreadableImageError if it has another size than its image."""
    ids = mask.ids
    if orientation != 1:
        ids = np.asarray(Image.fromarray(ids.astype(np.int32)).transpose(_TURNS[orientation])).astype(np.int64)
    if image.size != ids.shape[::-1]:
        raise UnreadableImageError(
            f"the image has {image.width} x {image.height} px, its mask {ids.shape[1]} x {ids.shape[0]}"
        )
    return _MaskFile(ids, mask.palette, mask.is_lossy, 1)


def _orientation(path: Path) -> int:
    """Return the EXIF orientation of an image file that `open_rgb` has read, 1 for upright."""
    try:
        with Image.open(path, formats=supported_formats()) as image:
            return _exif_orientation(image)
    except UnidentifiedImageError:
        return tiff_orientation(path)


def _exif_orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # Pillow raises any kind of error on damaged data; `open_rgb` notes it
        return 1
    return value if value in _TURNS else 1


def _read_mask(path: Path, mask_format: MaskFormat) -> _MaskFile:
    """Return the ids of a mask file: of 8 or 16 bits, an index, or a color. Raise UnreadableImageError for others."""
    if not path.is_file():  # opening a pipe blocks
        raise UnreadableImageError("not a regular file")
    try:
        with Image.open(path, formats=supported_formats()) as image:
            image.load()
            mode, orientation, is_lossy = image.mode, _exif_orientation(image), image.format in LOSSY_FORMATS
            palette = bytes(image.getpalette() or ()) if mode == "P" else b""
            pixels = np.asarray(image.convert("RGB") if mask_format.colors or mode in ("RGBA", "LA", "PA") else image)
    except Exception as error:  # Pillow raises any kind of error on damaged files
        raise UnreadableImageError(f"a mask that cannot be read: {error}") from error
    if mode == "F" and not mask_format.colors:
        mode, pixels = "I", _whole_numbers(pixels)
    ids = pixels.astype(np.int64)
    if mask_format.colors:
        ids = (ids[..., 0] << 16) | (ids[..., 1] << 8) | ids[..., 2]
    elif ids.ndim == 3 and (ids == ids[..., :1]).all():  # gray, saved in colors
        ids = ids[..., 0]
    elif ids.ndim == 3 or not (mode in ("P", "L", "1", "I", "LA") or mode.startswith("I;16")):
        raise UnreadableImageError(
            f"a mask of mode {mode}, whose pixels are colors; read them as classes with --labels colors, or save it "
            "with one number per pixel (index or gray PNG)"
        )
    elif ids.min() < 0 or ids.max() > 65535:
        raise UnreadableImageError(f"a mask with ids from {ids.min()} to {ids.max()}, outside 0 to 65535")
    if is_lossy and mask_format.nearest and not mask_format.colors:
        known = np.array(mask_format.nearest)
        ids = known[np.abs(ids[..., None] - known).argmin(-1)]
    return _MaskFile(ids, palette, is_lossy, orientation)


def _whole_numbers(pixels: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return floats that are whole numbers. Raise UnreadableImageError for others."""
    fractions = pixels[~(np.isfinite(pixels) & (pixels == np.rint(pixels)))]
    if fractions.size:
        raise UnreadableImageError(
            f"a mask with values such as {fractions.flat[0]:.4g}, which are no ids; save it with one whole number "
            "a pixel"
        )
    return pixels
