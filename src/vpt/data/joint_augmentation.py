"""Joint augmentation of an image and its mask, on tensors. Masks are moved, never interpolated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.data.mask_labels import IGNORE_INDEX

_MAX_CROP_ATTEMPTS = 10  # crops drawn before one of a single class is taken after all


@dataclass(frozen=True)
class JointAugmentation:
    """min_scale, max_scale: the short side is scaled to this times the crop. flip: mirror every second image.

    color_jitter: brightness and contrast vary by this fraction. max_class_fraction: a crop of which one class takes more is drawn again.
    """

    min_scale: float = 0.5
    max_scale: float = 2.0
    flip: bool = True
    color_jitter: float = 0.25
    max_class_fraction: float = 0.75

    def __call__(self, image: Tensor, mask: Tensor, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """uint8 (3, height, width) and (height, width) -> float 0..255 (3, size, size) and uint8 (size, size).

        Where an image is too small, its mean fills up the crop, and the mask is IGNORE_INDEX there.
        """
        image, mask = resize_pair(image, mask, round(size * float(rng.uniform(self.min_scale, self.max_scale))))
        pad_bottom, pad_right = (max(0, size - side) for side in mask.shape)
        if pad_bottom or pad_right:
            fill = image.mean(dim=(1, 2), keepdim=True)
            image = F.pad(image - fill, (0, pad_right, 0, pad_bottom)) + fill
            mask = F.pad(mask, (0, pad_right, 0, pad_bottom), value=IGNORE_INDEX)
        for _ in range(_MAX_CROP_ATTEMPTS):
            top, left = (int(rng.integers(0, side - size + 1)) for side in mask.shape)
            mask_crop = mask[top : top + size, left : left + size]
            counts = (
                mask_crop[mask_crop != IGNORE_INDEX].int().bincount() if self.max_class_fraction < 1 else torch.zeros(0)
            )
            if not counts.numel() or counts.max() <= self.max_class_fraction * counts.sum():
                break
        image = image[:, top : top + size, left : left + size]
        if self.flip and rng.random() < 0.5:
            image, mask_crop = image.flip(-1), mask_crop.flip(-1)
        if self.color_jitter:
            contrast, brightness = rng.uniform(-self.color_jitter, self.color_jitter, 2)
            mean = image.mean()
            image = ((image - mean) * (1 + float(contrast)) + mean * (1 + float(brightness))).clamp(0, 255)
        return image, mask_crop


def resize_pair(image: Tensor, mask: Tensor, short_side: int) -> tuple[Tensor, Tensor]:
    """Both, with a short side of `short` px: the image bilinear with antialiasing, as float; the mask by nearest."""
    height, width = mask.shape
    size = [max(1, round(side * short_side / min(height, width))) for side in (height, width)]
    resized_mask = F.interpolate(mask[None, None].float(), size=size, mode="nearest-exact")[0, 0].to(mask.dtype)
    return resize_tensor(image, size), resized_mask


def resize_tensor(image: Tensor, size: list[int]) -> Tensor:
    """An image (3, h, w), 0..255 -> float (3, *size), 0..255, bilinear with antialiasing."""
    return F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False, antialias=True)[0]
