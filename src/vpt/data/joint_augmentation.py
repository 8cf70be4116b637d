"""Joint augmentation of an image and its mask, on tensors. Masks are moved, never interpolated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.data.mask_labels import VOID

_TRIES = 10  # crops drawn before one of a single class is taken after all


@dataclass(frozen=True)
class Augment:
    """smallest, largest: the short side is scaled to this times the crop. flip: mirror every second image.

    colour: brightness and contrast vary by this share. single: a crop of which one class takes more is drawn again.
    """

    smallest: float = 0.5
    largest: float = 2.0
    flip: bool = True
    colour: float = 0.25
    single: float = 0.75

    def __call__(self, image: Tensor, mask: Tensor, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """uint8 (3, height, width) and (height, width) -> float 0..255 (3, size, size) and uint8 (size, size).

        Where an image is too small, its mean fills up the crop, and the mask is VOID there.
        """
        image, mask = scaled(image, mask, round(size * float(rng.uniform(self.smallest, self.largest))))
        down, across = (max(0, size - side) for side in mask.shape)
        if down or across:
            fill = image.mean(dim=(1, 2), keepdim=True)
            image = F.pad(image - fill, (0, across, 0, down)) + fill
            mask = F.pad(mask, (0, across, 0, down), value=VOID)
        for _ in range(_TRIES):
            top, left = (int(rng.integers(0, side - size + 1)) for side in mask.shape)
            cut = mask[top : top + size, left : left + size]
            counts = cut[cut != VOID].int().bincount() if self.single < 1 else torch.zeros(0)
            if not counts.numel() or counts.max() <= self.single * counts.sum():
                break
        image = image[:, top : top + size, left : left + size]
        if self.flip and rng.random() < 0.5:
            image, cut = image.flip(-1), cut.flip(-1)
        if self.colour:
            gain, shift = rng.uniform(-self.colour, self.colour, 2)
            mean = image.mean()
            image = ((image - mean) * (1 + float(gain)) + mean * (1 + float(shift))).clamp(0, 255)
        return image, cut


def scaled(image: Tensor, mask: Tensor, short: int) -> tuple[Tensor, Tensor]:
    """Both, with a short side of `short` px: the image bilinear with antialiasing, as float; the mask by nearest."""
    height, width = mask.shape
    size = [max(1, round(side * short / min(height, width))) for side in (height, width)]
    moved = F.interpolate(mask[None, None].float(), size=size, mode="nearest-exact")[0, 0].to(mask.dtype)
    return resized(image, size), moved


def resized(image: Tensor, size: list[int]) -> Tensor:
    """An image (3, h, w), 0..255 -> float (3, *size), 0..255, bilinear with antialiasing."""
    return F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False, antialias=True)[0]
