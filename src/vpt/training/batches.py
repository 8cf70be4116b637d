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

from vpt.data.image_inputs import require_uint8
from vpt.data.preprocessing import Preprocessing

# The side of the images to cut from, as a multiple of the input's: FGVC's 256 px for 224; and where at least half of
# the area is cut, so much that no cut has to be enlarged.
CROP_SCALE = {"random_crop": 8 / 7, "random_resized_crop": 2**0.5}


@dataclass(frozen=True)
class Examples:
    """Images in memory (or memory-mapped), with labels.

    pixels: uint8 (n, 3, side, side), `side` at least the input size. labels: int64 (n,).
    oversized: the same images, whole and with a longer side, of which `random_resized_crop` cuts; None takes `pixels`.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    oversized: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        for pixels in (self.pixels, self.oversized):
            if pixels is not None:
                require_uint8(pixels, "NCHW")

    def __len__(self) -> int:
        return len(self.labels)


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of n images for one epoch."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def iter_batches(indices: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Cut into batches; the last may be smaller, no image is left out."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


class DeviceDataset:
    """Turns indices into model inputs, on its device: normalized images or, once known, frozen features."""

    def __init__(self, examples: Examples, preprocessing: Preprocessing, device: torch.device) -> None:
        self.examples = examples
        self.preprocessing = preprocessing
        self.device = device
        self.labels = torch.from_numpy(examples.labels)
        self.features: Tensor | None = None  # (n, d)
        self.views: Tensor | None = None  # (views, n, d), the first of the images as they are
        self._images = _PixelStore(examples.pixels, device)
        self._oversized = self._images if examples.oversized is None else _PixelStore(examples.oversized, device)

    def __len__(self) -> int:
        return len(self.examples)

    def head(self, n: int) -> DeviceDataset:
        """The first `n` images."""
        examples = Examples(self.examples.pixels[:n], self.examples.labels[:n])
        return DeviceDataset(examples, self.preprocessing, self.device)

    def inputs(self, indices: NDArray[np.int64], augment: str = "none", rng: Any = None) -> Tensor:
        """(batch, 3, size, size) normalized, or (batch, d) where features are cached; of views, one of each image."""
        if self.features is not None and augment != "none" and self.views is not None:
            view_indices = torch.from_numpy(rng.integers(len(self.views), size=len(indices)))
            return self.views[view_indices, torch.from_numpy(indices)]
        if self.features is not None:
            return self.features[torch.from_numpy(indices)]
        if augment == "random_resized_crop":
            pixels = _random_resized_crops(self._oversized.gather(indices), self.preprocessing.size, rng)
        else:
            pixels = self._crop(self._images.gather(indices), augment, rng)
        return self.preprocessing.normalize(pixels)

    def targets(self, indices: NDArray[np.int64]) -> Tensor:
        """Labels (batch,) int64."""
        return self.labels[torch.from_numpy(indices)].to(self.device)

    def _crop(self, pixels: Tensor, augment: str, rng: Any) -> Tensor:
        """Random or center crop to the input size, and random flip, for each image; the whole batch on its device."""
        size, n = self.preprocessing.size, len(pixels)
        margin = pixels.shape[-1] - size
        if augment == "none":
            start = margin // 2
            return pixels[..., start : start + size, start : start + size]
        corners = rng.integers(0, margin + 1, (n, 2)) if augment == "random_crop" else np.full((n, 2), margin // 2)
        rows = corners[:, :1] + np.arange(size)
        columns = corners[:, 1:] + np.arange(size)
        flipped = rng.random(n) < 0.5
        columns[flipped] = columns[flipped, ::-1]
        image, row, column = (
            torch.from_numpy(index).to(self.device)
            for index in (np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :])
        )
        return pixels[image, :, row, column].permute(0, 3, 1, 2)


class _PixelStore:
    """Pixels; on a GPU, where they take no more than a quarter of what is free, they are copied there once."""

    def __init__(self, pixels: NDArray[np.uint8], device: torch.device) -> None:
        self.pixels = pixels
        self.device = device
        fits_on_device = device.type == "cuda" and 4 * pixels.nbytes <= torch.cuda.mem_get_info(device)[0]
        self.on_device = torch.from_numpy(np.array(pixels)).to(device) if fits_on_device else None

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        """uint8 (batch, 3, side, side) on the device."""
        if self.on_device is not None:
            return self.on_device[torch.from_numpy(indices).to(self.device)]
        pixels = torch.from_numpy(self.pixels[indices])
        return pixels.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else pixels


def _random_resized_crops(pixels: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Of each image (batch, 3, side, side) a part of half to all its area and nearly its shape, scaled to `size`.

    Half of them are mirrored. uint8, bilinear.
    """
    n, sign = len(pixels), np.where(rng.random(len(pixels)) < 0.5, -1.0, 1.0)
    scale, aspect = np.sqrt(rng.uniform(0.5, 1, n)), np.exp(rng.uniform(np.log(0.85), -np.log(0.85), n))
    sides = np.minimum(1, np.stack([scale * np.sqrt(aspect), scale / np.sqrt(aspect)], 1))  # width and height, of 1
    centers = (1 - sides) * rng.uniform(-1, 1, (n, 2))
    affine = np.zeros((n, 2, 3))
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = sign * sides[:, 0], sides[:, 1], centers
    grid = F.affine_grid(torch.from_numpy(affine).float(), [n, 3, size, size], align_corners=False)
    crops = F.grid_sample(pixels.float(), grid.to(pixels.device), padding_mode="border", align_corners=False)
    return crops.round().to(torch.uint8)
