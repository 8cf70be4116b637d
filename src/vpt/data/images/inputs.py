"""Images in every form that Python programs hold them, as upright RGB images with 8 bits per channel."""

from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vpt.data.images.files import UnreadableImageError, open_rgb, read_rgb, require_min_side, supported_formats, to_rgb
from vpt.data.images.value_range import ValueRange, scale_to_uint8
from vpt.errors import DataError


class StoredImage(ABC):
    """Base of images that are read whenever they are used, such as members of a tar file."""

    __slots__ = ()

    @abstractmethod
    def read(self) -> "str | Path | bytes | Image.Image | NDArray[Any] | Tensor":
        """Return the image in another form of `ImageInput`."""


ImageInput = str | Path | bytes | Image.Image | NDArray[Any] | Tensor | StoredImage

_CHANNELS = (1, 3, 4)  # gray, RGB, RGBA


def require_uint8(pixels: NDArray[Any], layout: str) -> None:
    """Refuse pixel arrays that do not hold a batch of uint8 RGB images.

    Args:
        pixels: The array to check.
        layout: "NHWC" or "NCHW", the required order of axes.

    Raises:
        DataError: The type is not uint8, the shape is not a batch of three-channel images, or they have no pixels.
    """
    is_batch = pixels.ndim == 4 and pixels.shape[layout.index("C")] == 3
    if pixels.dtype != np.uint8 or not is_batch or (len(pixels) and 0 in pixels.shape):
        values = f" from {pixels.min():g} to {pixels.max():g}" if pixels.size and pixels.dtype.kind in "iuf" else ""
        axes = "n, height, width, 3" if layout == "NHWC" else "n, 3, height, width"
        raise DataError(f"images are {pixels.dtype} {pixels.shape}{values}; give uint8 ({axes}) in 0..255")


def read_image(image: ImageInput, value_range: ValueRange | None = None) -> tuple[Image.Image, list[str]]:
    """Return one image of any form as an upright RGB image with 8 bits per channel.

    Args:
        image: A path, the bytes of an image file, a Pillow image, an array, a tensor or a stored image.
        value_range: Values of black and white in images with more than 8 bits. Default: the range of their type.

    Returns:
        The image, and notes about irregularities of a file.

    Raises:
        UnreadableImageError: The image cannot be used.
    """
    if isinstance(image, StoredImage):
        try:
            image = image.read()
        except Exception as error:  # Pillow raises any kind of error on damaged files
            raise UnreadableImageError(f"cannot be read: {error}") from error
    if isinstance(image, str | Path):
        return open_rgb(Path(image), value_range)
    if isinstance(image, bytes):
        return read_rgb(image, value_range), []
    if isinstance(image, Image.Image):
        require_min_side(*image.size)
        try:
            return to_rgb(image, value_range=value_range), []
        except UnreadableImageError:
            raise
        except Exception as error:  # Pillow raises any kind of error where it decodes a damaged file only now
            raise UnreadableImageError(f"damaged, or of another kind: {error}") from error
    if isinstance(image, Tensor):
        try:
            tensor = image.detach().cpu()
            image = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16
        except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, without data, or of other kinds
            raise UnreadableImageError(f"a tensor that is no array of pixels ({error}); give a dense one") from error
    if isinstance(image, np.ndarray):
        return to_rgb(Image.fromarray(_to_uint8(_channels_last(image), value_range))), []
    raise UnreadableImageError(
        f"a value of type {type(image).__name__}; give a path, bytes, a Pillow image, an array or a tensor"
    )


def read_size(image: ImageInput, value_range: ValueRange | None = None) -> tuple[int, int]:
    """Return the sides of an image of any form, for a file that Pillow opens without decoding it.

    Args:
        image: A path, the bytes of an image file, a Pillow image, an array, a tensor or a stored image.
        value_range: Values of black and white in images with more than 8 bits. Default: the range of their type.

    Returns:
        Width and height in pixels, which the EXIF orientation may exchange; (1, 1) for an image that cannot be read.
    """
    try:
        if isinstance(image, str | Path) and Path(image).is_file():  # opening a pipe blocks
            with suppress(UnidentifiedImageError), Image.open(image, formats=supported_formats()) as opened:
                return opened.size
        return read_image(image, value_range)[0].size
    except Exception:  # Pillow raises any kind of error on damaged files; `read_image` reports it
        pass
    return 1, 1


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


def _to_uint8(pixels: NDArray[Any], value_range: ValueRange | None) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if pixels.dtype.kind not in "biuf":
        raise UnreadableImageError(f"an array of {pixels.dtype}; give uint8 in 0..255 or float in 0..1")
    low, high = pixels.min(), pixels.max()
    if value_range is not None and np.isfinite([low, high]).all():
        return scale_to_uint8(pixels, value_range)
    remedy = "give uint8 in 0..255 or float in 0..1, before normalization"
    if pixels.dtype.kind != "f":
        raise UnreadableImageError(f"{pixels.dtype} pixels from {low} to {high}; {remedy}")
    if not (low >= 0 and high <= 1):  # true for NaN, too
        raise UnreadableImageError(f"{pixels.dtype} pixels from {low:g} to {high:g}, outside 0..1; {remedy}")
    scaled: NDArray[np.uint8] = np.rint(pixels * 255).astype(np.uint8)
    return scaled
