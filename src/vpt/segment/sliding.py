"""Inference at the original size: scales, flips, and a window that slides over larger images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.dense.heads import enlarged
from vpt.errors import SpecError
from vpt.model import TunedModel
from vpt.segment.augment import resized


@dataclass(frozen=True)
class Inference:
    """scales: the short side, as multiples of the model's input. flip: average with the mirrored image.

    overlap: of neighbouring windows, as a share of their side. batch_size: windows at once.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    overlap: float = 1 / 3
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise SpecError(f"scales are {self.scales}; give one or more numbers above 0")
        if not 0 <= self.overlap < 1:
            raise SpecError(f"overlap is {self.overlap}; it must be at least 0 and below 1")


MULTI_SCALE = Inference(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True)


@torch.inference_mode()
def shares(model: TunedModel, image: Tensor, how: Inference) -> Tensor:
    """An image, uint8 (3, height, width) -> probabilities (classes, height, width), averaged over scales and flips."""
    preprocessing, device = model.backbone.preprocessing, next(model.parameters()).device
    size = image.shape[-2:]
    total = torch.zeros(model.num_classes, *size, device=device)
    for scale in how.scales:
        short = preprocessing.size * scale / min(size)
        pixels = resized(image.to(device), [max(1, round(side * short)) for side in size])
        normal = preprocessing.normalise(pixels[None])
        total += enlarged(slide(model, normal, how), size).softmax(1)[0]
        if how.flip:
            total += enlarged(slide(model, normal.flip(-1), how).flip(-1), size).softmax(1)[0]
    return total / (len(how.scales) * (1 + how.flip))


def slide(model: TunedModel, image: Tensor, how: Inference) -> Tensor:
    """A normalised image (1, 3, height, width) of any size -> logits (1, classes, height, width).

    They are averaged where windows overlap. What is smaller than a window is filled up with the mean colour: 0.
    """
    side = model.backbone.preprocessing.size
    height, width = image.shape[-2:]
    image = F.pad(image, (0, max(0, side - width), 0, max(0, side - height)))
    places = [
        (top, left)
        for top in starts(image.shape[-2], side, how.overlap)
        for left in starts(image.shape[-1], side, how.overlap)
    ]
    total = image.new_zeros(1, model.num_classes, *image.shape[-2:])
    count = image.new_zeros(1, 1, *image.shape[-2:])
    for first in range(0, len(places), how.batch_size):
        some = places[first : first + how.batch_size]
        logits = model(torch.cat([image[..., top : top + side, left : left + side] for top, left in some]))
        for (top, left), part in zip(some, logits, strict=True):
            total[0, :, top : top + side, left : left + side] += part
            count[..., top : top + side, left : left + side] += 1
    return (total / count)[..., :height, :width]


def starts(length: int, side: int, overlap: float) -> list[int]:
    """Where windows of `side` begin along `length`: evenly spread, overlapping by at least `overlap`."""
    if length <= side:
        return [0]
    steps = math.ceil((length - side) / max(1, side * (1 - overlap)))
    return [round(i * (length - side) / steps) for i in range(steps + 1)]
