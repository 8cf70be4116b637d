"""Batches of images, in an order that depends on the seed and the epoch alone.

Nothing depends on earlier epochs, so an interrupted epoch can be repeated bit by bit.
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
from vpt.model.tuned_model import TunedModel

# Side of the images that crops are taken from, as a multiple of the input's: 256 px for 224, as FGVC; and for crops of
# half the area or more, so much that no crop has to be upsampled.
CROP_SCALE = {"random_crop": 8 / 7, "random_resized_crop": 2**0.5}


@dataclass(frozen=True)
class Examples:
    """Images in memory, or memory-mapped, with labels.

    Attributes:
        pixels: Images, uint8 (n, 3, side, side), with a side of at least the input size.
        labels: Class of each image, int64 (n,).
        oversized: The same images, whole and with a longer side, for `random_resized_crop`, or None to crop `pixels`.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    oversized: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        """Check that the pixels are uint8. A DataError is raised for other arrays."""
        for pixels in (self.pixels, self.oversized):
            if pixels is not None:
                require_uint8(pixels, "NCHW")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return a permutation of the images for one epoch.

    Args:
        n: Number of images.
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.

    Returns:
        The indices, int64 (n,).
    """
    return np.random.default_rng((seed, epoch)).permutation(n)


def iter_batches(indices: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Split indices into batches. The last one may be smaller.

    Args:
        indices: The indices.
        size: Size of a batch.

    Yields:
        The indices of each batch.
    """
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


class DeviceDataset:
    """Examples as model inputs on a device: normalized images, or frozen features once they are computed."""

    def __init__(self, examples: Examples, preprocessing: Preprocessing, device: torch.device) -> None:
        """Prepare examples for a device.

        Args:
            examples: Images and labels.
            preprocessing: Preprocessing of the backbone.
            device: Device of the inputs. A GPU keeps all pixels if they take at most a quarter of its free memory.
        """
        self.examples = examples
        self.preprocessing = preprocessing
        self.device = device
        self.labels: Tensor = torch.from_numpy(examples.labels)
        self.features: Tensor | None = None  # (views, n, d), the first view of the images as they are
        self._images = _PixelStore(examples.pixels, device)
        self._oversized = self._images if examples.oversized is None else _PixelStore(examples.oversized, device)

    @classmethod
    def for_model(cls, model: TunedModel, examples: Examples) -> DeviceDataset:
        """Return examples with the preprocessing of a model, on its device.

        Args:
            model: The model.
            examples: Images and labels.

        Returns:
            The dataset.
        """
        return cls(examples, model.backbone.preprocessing, next(model.parameters()).device)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.examples)

    def inputs(self, indices: NDArray[np.int64], augment: str = "none", rng: Any = None) -> Tensor:
        """Return the model inputs of some images.

        Args:
            indices: Indices of the images.
            augment: Name of the augmentation. Default: none.
            rng: Random generator of the augmentation. Default: none.

        Returns:
            Normalized images, (batch, 3, size, size), or cached features, (batch, d). Of several cached views of an
            image, augmentation takes one at random.
        """
        if self.features is not None:
            views = 0 if augment == "none" else torch.from_numpy(rng.integers(len(self.features), size=len(indices)))
            return self.features[views, torch.from_numpy(indices)]
        if augment == "random_resized_crop":
            pixels = _random_resized_crops(self._oversized.gather(indices), self.preprocessing.size, rng)
        else:
            pixels = self._crop(self._images.gather(indices), augment, rng)
        return self.preprocessing.normalize(pixels)

    def targets(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the labels of some images.

        Args:
            indices: Indices of the images.

        Returns:
            Labels, int64 (batch,).
        """
        return self.labels[torch.from_numpy(indices)].to(self.device)

    def _crop(self, pixels: Tensor, augment: str, rng: Any) -> Tensor:
        """Crop each image to the input size, at random or in the center, and flip it at random, on the device."""
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
    """Pixels, which are copied to a GPU once if they take at most a quarter of its free memory."""

    def __init__(self, pixels: NDArray[np.uint8], device: torch.device) -> None:
        self.pixels = pixels
        self.device = device
        fits_on_device = device.type == "cuda" and 4 * pixels.nbytes <= torch.cuda.mem_get_info(device)[0]
        self.on_device = torch.from_numpy(np.array(pixels)).to(device) if fits_on_device else None

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Return pixels, uint8 (batch, 3, side, side), on the device."""
        if self.on_device is not None:
            return self.on_device[torch.from_numpy(indices).to(self.device)]
        pixels = torch.from_numpy(self.pixels[indices])
        return pixels.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else pixels


def _random_resized_crops(pixels: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Crop half to all of the area of each image (batch, 3, side, side), nearly in its shape, and resize to `size`.

    Half of the crops are mirrored. The result is uint8, with bilinear interpolation.
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
