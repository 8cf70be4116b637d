"""Joint augmentation of an image and its mask. Masks are resized by nearest neighbor."""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from vpt.data.masks.schemes import IGNORE_INDEX

_MAX_CROP_ATTEMPTS = 10  # the last one with a label is used even if one class dominates it


@dataclass(frozen=True)
class JointAugmentation:
    """Random scale, crop, flip and color jitter of an image and its mask.

    Args:
        min_scale: Minimum length of the scaled short side, as a multiple of the crop size. Default: 0.5.
        max_scale: Maximum length of the scaled short side, as a multiple of the crop size. Default: 2.
        flip: Flip half of the images horizontally. Default: True.
        color_jitter: Maximum relative change of brightness and contrast. Default: 0.25.
        max_class_fraction: Crops in which one class covers a larger fraction are drawn again. Default: 0.75.
        vertical_flip: Flip half of the images vertically. Default: False.
    """

    min_scale: float = 0.5
    max_scale: float = 2.0
    flip: bool = True
    color_jitter: float = 0.25
    max_class_fraction: float = 0.75
    vertical_flip: bool = False

    def __call__(self, image: Tensor, mask: Tensor, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return a random crop of an image and its mask.

        Crops that extend beyond the image are filled with its mean color, and with IGNORE_INDEX in the mask. Crops
        without a label are drawn again.

        Args:
            image: uint8 (3, height, width).
            mask: uint8 (height, width).
            size: Side of the crop in pixels.
            rng: Random generator.

        Returns:
            The image as float (3, size, size) in 0..255, and the mask as uint8 (size, size).
        """
        image, mask = resize_pair(image, mask, round(size * float(rng.uniform(self.min_scale, self.max_scale))))
        pad_bottom, pad_right = (max(0, size - side) for side in mask.shape)
        if pad_bottom or pad_right:
            fill = image.mean(dim=(1, 2), keepdim=True)
            image = F.pad(image - fill, (0, pad_right, 0, pad_bottom)) + fill
            mask = F.pad(mask, (0, pad_right, 0, pad_bottom), value=IGNORE_INDEX)
        for attempt in range(_MAX_CROP_ATTEMPTS):
            top, left = (int(rng.integers(0, side - size + 1)) for side in mask.shape)
            known = mask[top : top + size, left : left + size]
            known = known[known != IGNORE_INDEX].int()
            if known.numel() or not attempt:
                window = (..., slice(top, top + size), slice(left, left + size))
            if known.numel() and known.bincount().max() <= self.max_class_fraction * known.numel():
                break
        image, mask_crop = image[window], mask[window]
        if self.flip and rng.random() < 0.5:
            image, mask_crop = image.flip(-1), mask_crop.flip(-1)
        if self.vertical_flip and rng.random() < 0.5:
            image, mask_crop = image.flip(-2), mask_crop.flip(-2)
        if self.color_jitter:
            contrast, brightness = rng.uniform(-self.color_jitter, self.color_jitter, 2)
            mean = float(image.numpy().mean(dtype=np.float64))  # torch's depends on the number of threads
            image = ((image - mean) * (1 + float(contrast)) + mean * (1 + float(brightness))).clamp(0, 255)
        return image, mask_crop


def resize_pair(image: Tensor, mask: Tensor, short_side: int) -> tuple[Tensor, Tensor]:
    """Resize an image and its mask to a given short side.

    Args:
        image: (3, height, width), 0..255.
        mask: (height, width).
        short_side: Length of the short side in pixels.

    Returns:
        The image as float, resized by antialiased bilinear interpolation, and the mask, resized by nearest neighbor.
    """
    height, width = mask.shape
    size = [max(1, round(side * short_side / min(height, width))) for side in (height, width)]
    resized_mask = F.interpolate(mask[None, None].float(), size=size, mode="nearest-exact")[0, 0].to(mask.dtype)
    return resize_tensor(image, size), resized_mask


def resize_tensor(image: Tensor, size: list[int]) -> Tensor:
    """Resize an image by antialiased bilinear interpolation.

    Args:
        image: (3, height, width), 0..255.
        size: Height and width in pixels.

    Returns:
        float (3, *size), 0..255.
    """
    return F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False, antialias=True)[0]
