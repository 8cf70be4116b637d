"""Batches: which images, in which order, as a function of the seed and the epoch alone.

Because nothing depends on what ran before, an epoch that was cut off is simply done again, to the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
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
        self.features: Tensor | None = None
        self.resident = self._on_device()

    def __len__(self) -> int:
        return len(self.examples)

    def first(self) -> Feed:
        """The first image alone."""
        one = Examples(self.examples.pixels[:1], self.examples.labels[:1])
        return Feed(one, self.preprocessing, self.device)

    def inputs(self, indices: NDArray[np.int64], augment: str = "none", rng: Any = None) -> Tensor:
        """(batch, 3, size, size) normalised, or (batch, d) where features are cached."""
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
        if augment == "none":
            start = slack // 2
            return pixels[..., start : start + size, start : start + size]
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
