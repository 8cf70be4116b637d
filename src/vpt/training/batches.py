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

    def __len__(self) -> int:
        return len(self.examples)

    def inputs(self, indices: NDArray[np.int64], augment: str = "none", rng: Any = None) -> Tensor:
        """(batch, 3, size, size) normalised, or (batch, d) where features are cached."""
        if self.features is not None:
            return self.features[torch.from_numpy(indices)]
        pixels = torch.from_numpy(self.examples.pixels[indices])
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        return self.preprocessing.normalise(self._cut(pixels, augment, rng))

    def targets(self, indices: NDArray[np.int64]) -> Tensor:
        """Labels (batch,) int64."""
        return self.labels[torch.from_numpy(indices)].to(self.device)

    def _cut(self, pixels: Tensor, augment: str, rng: Any) -> Tensor:
        """Random or centre crop to the input size, and random flip, per image."""
        size = self.preprocessing.size
        slack = pixels.shape[-1] - size
        if augment == "none":
            start = slack // 2
            return pixels[..., start : start + size, start : start + size]
        out = []
        for image in pixels:
            top, left = rng.integers(0, slack + 1, 2) if augment == "crop" else (slack // 2, slack // 2)
            cut = image[:, top : top + size, left : left + size]
            out.append(cut.flip(-1) if rng.random() < 0.5 else cut)
        return torch.stack(out)
