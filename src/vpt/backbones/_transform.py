"""The preprocessing of a backbone as a torchvision transform. Private, because torchvision has no types."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torchvision.transforms import v2  # type: ignore[import-untyped]

from vpt.data.image_files import to_rgb
from vpt.data.preprocessing import Preprocessing


class ResizeImage(v2.Transform):  # type: ignore[misc]
    """A torchvision v2 transform: a Pillow image of any mode and size -> uint8 tensor (3, size, size).

    Args:
        preprocessing: The size, the resampling filter, and squash or crop.
    """

    _transformed_types = (Image.Image,)

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing

    def transform(self, inpt: Image.Image, params: dict[str, Any]) -> torch.Tensor:
        """Return the resized image.

        Args:
            inpt: The image; its EXIF orientation is applied.
            params: Not used.

        Returns:
            uint8 (3, size, size).
        """
        return torch.from_numpy(self.preprocessing.resize_image(to_rgb(inpt)))


class NormalizeImage(v2.Transform):  # type: ignore[misc]
    """A torchvision v2 transform: uint8 tensor (3, size, size) -> normalized float32.

    `v2.ToDtype` and `v2.Normalize` round otherwise in the last bit.

    Args:
        preprocessing: The mean and the standard deviation.
    """

    _transformed_types = (torch.Tensor,)

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Return the normalized image.

        Args:
            inpt: uint8 (3, size, size).
            params: Not used.

        Returns:
            float32 (3, size, size).
        """
        return self.preprocessing.normalize(inpt.unsqueeze(0)).squeeze(0)


def make_transform(preprocessing: Preprocessing, train: bool = False) -> v2.Compose:
    """Return the preprocessing as a torchvision v2 transform.

    Args:
        preprocessing: The preprocessing.
        train: Flip half of the images horizontally. Default: False.

    Returns:
        Pillow image -> normalized float32 (3, size, size).
    """
    flips = [v2.RandomHorizontalFlip()] if train else []
    return v2.Compose([ResizeImage(preprocessing), *flips, NormalizeImage(preprocessing)])
