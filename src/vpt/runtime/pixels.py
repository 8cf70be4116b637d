"""Images as the input of a graph, as `Preprocessing` of the library makes them."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vpt.core.input_files import require_regular_file
from vpt.errors import DataError

# Raster formats. Pillow opens more, such as EPS, for which it starts another program.
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "QOI", "TIFF", "WEBP")
_MAX_ASPECT = 16  # of a longer strip the middle is used, as in training


def read_image(source: str | Path | Image.Image) -> Image.Image:
    """Return an upright RGB image with 8 bits per channel. Transparent pixels are blended with white.

    Args:
        source: Path of an image file, or a Pillow image.

    Returns:
        The image.

    Raises:
        DataError: The file cannot be read, or has more than 8 bits per channel.
    """
    if not isinstance(source, Image.Image):
        if not isinstance(source, str | Path):
            raise DataError(f"an image is a {type(source).__name__}; give the path of a JPEG or PNG file")
        require_regular_file(Path(source), "JPEG or PNG file", "give the path of one", DataError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of damaged EXIF data
            warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
            Image.init()
            formats = [name for name in _FORMATS if name in Image.OPEN]
            image = source if isinstance(source, Image.Image) else Image.open(source, formats=formats)
            is_deep = image.mode.startswith(("I", "F")) or ";16" in str(getattr(image, "tile", ""))
            image.load()
            image.getexif()
    except Exception as error:  # Pillow raises any kind of error on damaged files
        raise DataError(f"{source} is not an image that Pillow reads ({error}); give a JPEG or PNG file") from error
    if is_deep:
        raise DataError(
            f"{source} has more than 8 bits per channel, whose range this small runtime does not know; use "
            "`vpt predict` with the tuned file"
        )
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data; the pixels are sound
        upright = image
    if upright.has_transparency_data:
        layers = Image.new("RGBA", upright.size, "white"), upright.convert("RGBA")
        return Image.alpha_composite(*layers).convert("RGB")
    return upright.convert("RGB")


def to_input(image: Image.Image, preprocessing: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return an image as the input of a graph.

    Args:
        image: An RGB image of any size.
        preprocessing: The preprocessing, as the graph records it.

    Returns:
        Normalized float32 (channels, size, size).
    """
    pixels: NDArray[Any] = resize(image, preprocessing).astype(np.float32) / 255
    mean, std = (np.array(preprocessing[name], np.float32).reshape(-1, 1, 1) for name in ("mean", "std"))
    if len(mean) == 1:
        pixels = np.einsum("chw,c->hw", pixels, np.array((0.299, 0.587, 0.114), np.float32))[None]
    normalized: NDArray[np.float32] = (pixels - mean) / std
    return normalized


def resize(image: Image.Image, preprocessing: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return an image as an array of the size of the input.

    Args:
        image: An RGB image of any size.
        preprocessing: The preprocessing, as the graph records it.

    Returns:
        uint8 (3, size, size).
    """
    size, method = preprocessing["size"], Image.Resampling[preprocessing["interpolation"].upper()]
    if preprocessing["resize"] == "squash":
        return _to_array(image.resize((size, size), method))
    side, short = round(size / preprocessing["crop_fraction"]), min(image.size)
    cut_x, cut_y = (max(0, length - _MAX_ASPECT * short) / 2 for length in image.size)
    long = int(side * min(max(image.size), _MAX_ASPECT * short) / short)
    whole = (side, long) if image.width <= image.height else (long, side)
    array = _to_array(image.resize(whole, method, box=(cut_x, cut_y, image.width - cut_x, image.height - cut_y)))
    top, left = (round((length - size) / 2) for length in array.shape[1:])
    return array[:, top : top + size, left : left + size]


def _to_array(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)
