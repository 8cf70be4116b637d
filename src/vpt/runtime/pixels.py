"""Images as the input of a graph, with the pixels that the library makes of them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt.data.images.files import UnreadableImageError, capture_warnings, open_rgb, require_min_side, to_rgb
from vpt.data.images.value_range import ValueRange
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError, VptError

ImageSource = str | Path | Image.Image


def name_of(source: ImageSource, index: int) -> str:
    """Return the name of an image in predictions.

    Args:
        source: Path of an image file, or a Pillow image.
        index: Its number among the given images, from 0.

    Returns:
        The path, or "image 0" and so on for images in memory.
    """
    return f"image {index}" if isinstance(source, Image.Image) else str(source)


def read_input(source: ImageSource, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return an image as the input of a graph.

    Args:
        source: Path of an image file, or a Pillow image.
        preprocessing: The preprocessing of the model.

    Returns:
        Normalized float32 (channels, size, size).

    Raises:
        DataError: The image cannot be used.
    """
    return to_input(read_image(source, preprocessing.value_range), preprocessing)


def read_image(source: ImageSource, value_range: ValueRange | None = None) -> Image.Image:
    """Return an upright RGB image with 8 bits per channel. Transparent pixels are blended with white.

    Args:
        source: Path of an image file, or a Pillow image.
        value_range: Values of black and white in images with more than 8 bits. Default: the range of their type.

    Returns:
        The image.

    Raises:
        DataError: The image cannot be used.
        VptError: An image with more than 8 bits per channel needs a package that is not installed.
    """
    name = "an image in memory" if isinstance(source, Image.Image) else source
    if not isinstance(source, ImageSource):
        raise DataError(f"an image is a {type(source).__name__}; give the path of a JPEG or PNG file")
    try:
        with capture_warnings():
            if not isinstance(source, Image.Image):
                return open_rgb(Path(source), value_range)[0]
            require_min_side(*source.size)
            return to_rgb(source, value_range=value_range)
    except VptError:
        raise
    except UnreadableImageError as error:
        raise DataError(f"{name} cannot be used: {error}; replace it") from error
    except Exception as error:  # Pillow raises any kind of error where it decodes a damaged file only now
        raise DataError(f"{name} cannot be used: damaged, or of another kind: {error}; replace it") from error


def to_input(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return an RGB image as the input of a graph.

    Args:
        image: An RGB image of any size.
        preprocessing: The preprocessing of the model.

    Returns:
        Normalized float32 (channels, size, size).
    """
    pixels: NDArray[Any] = preprocessing.resize_image(image).astype(np.float32) / 255
    mean, std = (np.array(each, np.float32).reshape(-1, 1, 1) for each in (preprocessing.mean, preprocessing.std))
    if preprocessing.channels == 1:  # Pillow's weights of "L"
        pixels = np.einsum("chw,c->hw", pixels, np.array((0.299, 0.587, 0.114), np.float32))[None]
    normalized: NDArray[np.float32] = (pixels - mean) / std
    return normalized
