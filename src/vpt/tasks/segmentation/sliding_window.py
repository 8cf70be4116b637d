"""Inference at the original size: scales, flips, and a window that slides over larger images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.data.joint_augmentation import resized
from vpt.errors import SpecError
from vpt.heads.dense import enlarged
from vpt.model.tuned_model import TunedModel


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


_HELD = 2**25  # probabilities at once: 128 MB


@torch.inference_mode()
def strips(model: TunedModel, image: Tensor, how: Inference) -> Iterator[tuple[slice, Tensor]]:
    """An image, uint8 (3, height, width) -> its rows, some at a time, and their probabilities (classes, rows, width).

    They are averaged over scales and flips. What is held at once does not grow with the image, but for the classes'
    logits at the size that the model sees.
    """
    preprocessing, device = model.backbone.preprocessing, next(model.parameters()).device
    height, width = size = image.shape[-2:]
    maps = []
    for scale in how.scales:
        short = preprocessing.size * scale / min(size)
        pixels = resized(image.to(device), [max(1, round(side * short)) for side in size])
        normal = preprocessing.normalise(pixels[None])
        maps.append(slide(model, normal, how))
        if how.flip:
            maps.append(slide(model, normal.flip(-1), how).flip(-1))
    step = max(1, _HELD // (model.num_classes * width))
    for top in range(0, height, step):
        rows = range(top, min(top + step, height))
        each = (_enlarged_rows(map_, size, rows).softmax(1)[0] for map_ in maps)
        yield slice(rows.start, rows.stop), sum(each, torch.zeros(())) / len(maps)


def classes_of(model: TunedModel, image: Tensor, how: Inference) -> Tensor:
    """An image, uint8 (3, height, width) -> the class of each of its pixels, int64 (height, width) on the CPU."""
    return torch.cat([shares.argmax(0).cpu() for _, shares in strips(model, image, how)])


def _enlarged_rows(logits: Tensor, size: Sequence[int], rows: range) -> Tensor:
    """Some rows of `enlarged(logits, size)`: (1, classes, rows, width). To rounding, if they are not all of them."""
    height, width = size
    if len(rows) == height:
        return enlarged(logits, size)
    last = logits.shape[-2] - 1
    places = torch.arange(rows.start, rows.stop, device=logits.device)
    places = ((places + 0.5) * (logits.shape[-2] / height) - 0.5).clamp(0, last)
    above = places.floor().long()
    below = (above + 1).clamp(max=last)
    between = logits[..., above, :].lerp(logits[..., below, :], (places - above).to(logits.dtype).unsqueeze(1))
    return enlarged(between, (len(rows), width))


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
