"""The preprocessing of a backbone as a torchvision transform. Private, because torchvision has no types."""

from functools import partial

import torch
from PIL import Image
from torchvision.transforms import v2  # type: ignore[import-untyped]

from vpt.data.images.files import to_rgb
from vpt.data.preprocessing import Preprocessing


def make_transform(preprocessing: Preprocessing, train: bool = False) -> v2.Compose:
    """Return the preprocessing as a torchvision v2 transform.

    Args:
        preprocessing: The preprocessing.
        train: Flip half of the images horizontally. Default: False.

    Returns:
        Pillow image -> normalized float32 (3, size, size).
    """
    resize = v2.Lambda(partial(_resize, preprocessing), Image.Image)
    # `v2.ToDtype` and `v2.Normalize` round otherwise in the last bit.
    normalize = v2.Lambda(partial(_normalize, preprocessing), torch.Tensor)
    return v2.Compose([resize, *[v2.RandomHorizontalFlip()] * train, normalize])


def _resize(preprocessing: Preprocessing, image: Image.Image) -> torch.Tensor:
    """Pillow image of any mode and size, whose EXIF orientation is applied -> uint8 (3, size, size)."""
    return torch.from_numpy(preprocessing.resize_image(to_rgb(image, value_range=preprocessing.value_range)))


def _normalize(preprocessing: Preprocessing, image: torch.Tensor) -> torch.Tensor:
    """uint8 (3, size, size) -> normalized float32 (3, size, size)."""
    return preprocessing.normalize(image.unsqueeze(0)).squeeze(0)
