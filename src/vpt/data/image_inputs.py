"""Images in every form that Python programs hold them, converted to upright RGB images with 8 bits per channel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vpt.core.text import bullets, pluralize
from vpt.data.image_files import UnreadableImageError, capture_warnings, open_rgb, read_rgb, require_min_side, to_rgb
from vpt.errors import DataError

ImageInput = str | Path | bytes | Image.Image | NDArray[Any] | Tensor

_CHANNELS = (1, 3, 4)  # gray, RGB, RGBA


def as_images(images: ImageInput | Sequence[ImageInput]) -> list[Image.Image]:
    """Return images of any form as upright RGB images with 8 bits per channel.

    Transparent pixels are blended with white. EXIF orientation is applied to files, bytes and Pillow images.

    Args:
        images: One image or a sequence of images. An image is a path, the bytes of an image file, a Pillow image, or
            an array or tensor: uint8 in 0..255 or float in 0..1, of shape (height, width),
            (height, width, channels) or (channels, height, width), with 1, 3 or 4 channels. An array or tensor with
            four dimensions holds several images.

    Returns:
        One image per input, in the same order.

    Raises:
        DataError: An image cannot be used. The message names every such image by its index or path.
    """
    if isinstance(images, np.ndarray | Tensor):
        images = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, str | Path | bytes | Image.Image):
        images = [images]
    converted, faults = [], []
    for index, image in enumerate(images):
        try:
            with capture_warnings():
                converted.append(read_image(image)[0])
        except UnreadableImageError as error:
            label = str(image) if isinstance(image, str | Path) else f"image {index}"
            faults.append(f"{label}: {error}")
    if faults:
        raise DataError(
            f"{len(faults)} of {pluralize(len(images), 'image')} cannot be used:"
            f"{bullets(faults, limit=len(faults))}\nreplace or remove them"
        )
    return converted


def require_uint8(pixels: NDArray[Any], layout: str) -> None:
    """Refuse pixel arrays that do not hold a batch of uint8 RGB images.

    Args:
        pixels: The array to check.
        layout: "NHWC" or "NCHW", the required order of axes.

    Raises:
        DataError: The type is not uint8, or the shape is not a batch of three-channel images.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[layout.index("C")] != 3:
        values = f" from {pixels.min():g} to {pixels.max():g}" if pixels.size and pixels.dtype.kind in "iuf" else ""
        axes = "n, height, width, 3" if layout == "NHWC" else "n, 3, height, width"
        raise DataError(f"images are {pixels.dtype} {pixels.shape}{values}; give uint8 ({axes}) in 0..255")


def read_image(image: ImageInput) -> tuple[Image.Image, list[str]]:
    """Return one image of any form as an upright RGB image with 8 bits per channel.

    Args:
        image: A path, the bytes of an image file, a Pillow image, an array or a tensor, as in `as_images`.

    Returns:
        The image, and notes about irregularities of a file.

    Raises:
        UnreadableImageError: The image cannot be used.
    """
    if isinstance(image, str | Path):
        return open_rgb(Path(image))
    if isinstance(image, bytes):
        return read_rgb(image), []
    if isinstance(image, Image.Image):
        require_min_side(*image.size)
        return to_rgb(image.copy()), []
    if isinstance(image, Tensor):
        tensor = image.detach().cpu()
        image = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16
    if isinstance(image, np.ndarray):
        return to_rgb(Image.fromarray(_to_uint8(_channels_last(image)))), []
    raise UnreadableImageError(
        f"a value of type {type(image).__name__}; give a path, bytes, a Pillow image, an array or a tensor"
    )


def _channels_last(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return pixels as (height, width) for gray images, else as (height, width, channels)."""
    if pixels.ndim == 3 and pixels.shape[2] not in _CHANNELS and pixels.shape[0] in _CHANNELS:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in _CHANNELS):
        raise UnreadableImageError(
            f"an array of shape {pixels.shape}; give (height, width), (height, width, channels) or "
            "(channels, height, width) with 1, 3 or 4 channels"
        )
    require_min_side(pixels.shape[1], pixels.shape[0])
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def _to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    low, high = pixels.min(), pixels.max()
    remedy = "give uint8 in 0..255 or float in 0..1, before normalization"
    if pixels.dtype.kind != "f":
        raise UnreadableImageError(f"{pixels.dtype} pixels from {low} to {high}; {remedy}")
    if not (low >= 0 and high <= 1):  # true for NaN, too
        raise UnreadableImageError(f"{pixels.dtype} pixels from {low:g} to {high:g}, outside 0..1; {remedy}")
    scaled: NDArray[np.uint8] = np.rint(pixels * 255).astype(np.uint8)
    return scaled
