"""Batches: which images, in which order, as a function of the seed and the epoch alone.

Because nothing depends on what ran before, an epoch that was cut off is simply done again, to the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vpt.data.transforms import Preprocessing


@dataclass(frozen=True)
class Examples:
    """Images in memory (or memory-mapped), with labels.

    pixels: uint8 (n, 3, side, side), `side` at least the input size. labels: int64 (n,).
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of n images for one epoch."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def batches(indices: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Cut into batches; the last may be smaller, no image is left out."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


class Feed:
    """Turns indices into what the model eats, on its device: normalised images or, once known, frozen features."""

    def __init__(self, examples: Examples, preprocessing: Preprocessing, device: torch.device) -> None:
        self.examples = examples
        self.preprocessing = preprocessing
        self.device = device
        self.labels = torch.from_numpy(examples.labels)
        self.features: Tensor | None = None  # (n, d)
        self.views: Tensor | None = None  # (views, n, d), the first of the images as they are
        self.resident = self._on_device()

    def __len__(self) -> int:
        return len(self.examples)

    def first(self) -> Feed:
        """The first image alone."""
        one = Examples(self.examples.pixels[:1], self.examples.labels[:1])
        return Feed(one, self.preprocessing, self.device)

    def inputs(self, indices: NDArray[np.int64], augment: str = "none", rng: Any = None) -> Tensor:
        """(batch, 3, size, size) normalised, or (batch, d) where features are cached; of views, one of each image."""
        if self.features is not None and augment != "none" and self.views is not None:
            drawn = torch.from_numpy(rng.integers(len(self.views), size=len(indices)))
            return self.views[drawn, torch.from_numpy(indices)]
        if self.features is not None:
            return self.features[torch.from_numpy(indices)]
        if self.resident is not None:
            pixels = self.resident[torch.from_numpy(indices).to(self.device)]
        else:
            pixels = torch.from_numpy(self.examples.pixels[indices])
            if self.device.type == "cuda":
                pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        return self.preprocessing.normalise(self._cut(pixels, augment, rng))

    def targets(self, indices: NDArray[np.int64]) -> Tensor:
        """Labels (batch,) int64."""
        return self.labels[torch.from_numpy(indices)].to(self.device)

    def _on_device(self) -> Tensor | None:
        """All pixels, on a GPU where they take no more than a quarter of what is free: copied once, never again."""
        pixels = self.examples.pixels
        if self.device.type != "cuda" or 4 * pixels.nbytes > torch.cuda.mem_get_info(self.device)[0]:
            return None
        return torch.from_numpy(np.array(pixels)).to(self.device)

    def _cut(self, pixels: Tensor, augment: str, rng: Any) -> Tensor:
        """Random or centre crop to the input size, and random flip, for each image; the whole batch on its device."""
        size, n = self.preprocessing.size, len(pixels)
        slack = pixels.shape[-1] - size
        if augment in ("none", "resize_crop"):
            start = slack // 2
            middle = pixels[..., start : start + size, start : start + size]
            return middle if augment == "none" else _resized_crops(middle, rng)
        corners = rng.integers(0, slack + 1, (n, 2)) if augment == "crop" else np.full((n, 2), slack // 2)
        rows = corners[:, :1] + np.arange(size)
        columns = corners[:, 1:] + np.arange(size)
        flipped = rng.random(n) < 0.5
        columns[flipped] = columns[flipped, ::-1]
        image, row, column = (
            torch.from_numpy(places).to(self.device)
            for places in (np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :])
        )
        return pixels[image, :, row, column].permute(0, 3, 1, 2)


def _resized_crops(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Of each image (batch, 3, size, size) a part of half to all its area and nearly its shape, as large as before.

    Half of them are mirrored. uint8, bilinear.
    """
    n, sign = len(pixels), np.where(rng.random(len(pixels)) < 0.5, -1.0, 1.0)
    side, shape = np.sqrt(rng.uniform(0.5, 1, n)), np.exp(rng.uniform(np.log(0.85), -np.log(0.85), n))
    sides = np.minimum(1, np.stack([side * np.sqrt(shape), side / np.sqrt(shape)], 1))  # width and height, of 1
    centres = (1 - sides) * rng.uniform(-1, 1, (n, 2))
    boxes = np.zeros((n, 2, 3))
    boxes[:, 0, 0], boxes[:, 1, 1], boxes[:, :, 2] = sign * sides[:, 0], sides[:, 1], centres
    where = F.affine_grid(torch.from_numpy(boxes).float(), list(pixels.shape), align_corners=False)
    found = F.grid_sample(pixels.float(), where.to(pixels.device), padding_mode="border", align_corners=False)
    return found.round().to(torch.uint8)
