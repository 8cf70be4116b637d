"""A look for images that use a small share of the range of values that is black to white."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vpt.data.decoding.arrays import map_images
from vpt.data.images.deep_colors import gray_values, read_deep_colors
from vpt.data.images.files import has_deep_pixels, supported_formats
from vpt.data.images.inputs import ImageInput, StoredImage
from vpt.data.images.value_range import ValueRange

_NUM_IMAGES = 100  # whose pixels are read
_SHARE = 1 / 4  # of the range: 14 bits in 16


def value_range_notes(
    images: Sequence[ImageInput] | NDArray[np.uint8], value_range: ValueRange | None = None
) -> tuple[str, ...]:
    """Return notes on images with more than 8 bits that would be nearly black, or nearly one gray.

    Args:
        images: The images, of which some are read: files, their bytes and Pillow images, stored or not.
        value_range: The values that count as black and white. Default: the range of the type.

    Returns:
        At most one note for images of whole numbers, and one for images of floats.
    """
    if isinstance(images, np.ndarray):
        return ()
    every = max(1, len(images) // _NUM_IMAGES)
    found = [extremes for extremes in map_images(_extremes, images[::every]) if extremes is not None]
    notes = []
    for is_float in (False, True):
        ends = [(low, high) for low, high, of_floats in found if of_floats == is_float]
        if not ends:
            continue
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        black, white = value_range or (0, 65535 if not is_float else 1 if high <= 1 else 255)
        if not 0 < high - low <= _SHARE * (white - black) or low < black or high > white:
            continue
        bits = int(high).bit_length()
        from_zero = not is_float and value_range is None and 2**bits - 1 <= _SHARE * white
        fitting = f"0,{2**bits - 1}" if from_zero else f"{low:.6g},{high:.6g}"
        notes.append(
            f"images with more than 8 bits have values from {low:.6g} to {high:.6g}, and black to white is "
            f"{black:g} to {white:g}, so they have hardly any contrast; --value-range {fitting} reads them with full "
            "contrast"
        )
    return tuple(notes)


def _extremes(image: ImageInput) -> tuple[float, float, bool] | None:
    """Return the smallest and the largest value of an image with more than 8 bits, and True for floats."""
    try:
        values = _deep_values(image.read() if isinstance(image, StoredImage) else image)
    except Exception:  # Pillow raises any kind of error on damaged files; decoding reports it
        return None
    if values is None or values.dtype == np.uint8:
        return None
    low, high = float(values.min()), float(values.max())
    return (low, high, values.dtype.kind == "f") if np.isfinite([low, high]).all() else None


def _deep_values(image: ImageInput) -> NDArray[Any] | None:
    """Return the values of a file or a Pillow image with more than 8 bits."""
    if isinstance(image, bytes):
        return _values_of_file(io.BytesIO(image))
    if isinstance(image, str | Path) and Path(image).is_file():  # opening a pipe blocks
        with Path(image).open("rb") as file:
            return _values_of_file(file)
    return gray_values(image) if isinstance(image, Image.Image) and has_deep_pixels(image) else None


def _values_of_file(file: IO[bytes]) -> NDArray[Any] | None:
    try:
        opened = Image.open(file, formats=supported_formats())
    except UnidentifiedImageError:
        deep = read_deep_colors(file, None)
        return None if deep is None else deep.values
    with opened:
        deep = read_deep_colors(file, opened)
        return _deep_values(opened) if deep is None else deep.values
