"""Batches of images, in an order that depends on the seed and the epoch alone.

Nothing depends on earlier epochs, so an interrupted epoch can be repeated bit by bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpt.data.decoding.stream import StreamedImages
from vpt.data.decoding.whole_images import WholeImages
from vpt.data.images.inputs import require_uint8
from vpt.data.label_kinds import check_labels
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError, SpecError
from vpt.model.tuned_model import TunedModel
from vpt.training.augmentation import ImageAugmentation, parse_augmentation, random_box, resize_crop


@dataclass(frozen=True)
class Examples:
    """Images in memory, memory-mapped or streamed, with labels.

    Attributes:
        pixels: Images, uint8 (n, 3, side, side), with a side of at least the input size; or a stream of them.
        labels: Class of each image, int64 (n,); several labels, float32 (n, classes); or a number, float64 (n,). Other
            types are converted.
        oversized: The same images, whole and larger, which random crops are taken from, or None to crop `pixels`.
        groups: Group of each image, int64 (n,), or None if every image is on its own.
    """

    pixels: NDArray[np.uint8] | StreamedImages
    labels: NDArray[Any]
    oversized: NDArray[np.uint8] | WholeImages | None = None
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Check pixels and labels. A DataError is raised for others."""
        object.__setattr__(self, "labels", check_labels(np.asarray(self.labels)))
        for pixels in (self.pixels, self.oversized):
            if pixels is not None and not isinstance(pixels, WholeImages | StreamedImages):
                require_uint8(pixels, "NCHW")
        if len(self.pixels) != len(self.labels):
            raise DataError(
                f"{len(self.pixels)} images and labels of shape {self.labels.shape} do not match; give one label per "
                "image"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def content(self) -> memoryview | bytes:
        """The pixels as they enter digests: their bytes, or the digest of a stream."""
        if isinstance(self.pixels, StreamedImages):
            return self.pixels.digest
        return np.ascontiguousarray(self.pixels).data  # no copy of what is contiguous, as mapped files are


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


def number_draws(indices: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return numbers that tell the draws of an image in an epoch apart, so that each has an augmentation of its own.

    Args:
        indices: Indices of images, some of them several times.
        n: Number of images.

    Returns:
        i + k * n for the draw of image i that follows k earlier ones.
    """
    order = np.argsort(indices, kind="stable")
    starts = np.searchsorted(indices[order], indices[order])
    earlier = np.empty_like(indices)
    earlier[order] = np.arange(len(indices)) - starts
    return indices + n * earlier


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


def join_last(batches: Sequence[NDArray[np.int64]], min_size: int) -> Sequence[NDArray[np.int64]]:
    """Join a last batch that is too small with the one before it.

    Args:
        batches: The indices of each batch.
        min_size: Smallest size of a batch.

    Returns:
        The batches. A single one keeps its size.
    """
    if len(batches) > 1 and len(batches[-1]) < min_size:
        return [*batches[:-2], np.concatenate(batches[-2:])]
    return batches


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
        self.stream: StreamedImages | None = None
        self._seed: tuple[int, ...] | None = None
        if isinstance(examples.pixels, StreamedImages):
            self.stream = examples.pixels
            return
        self._images = _PixelStore(examples.pixels, device)
        self._oversized = self._images if examples.oversized is None else _PixelStore(examples.oversized, device)

    @classmethod
    def for_model(cls, model: TunedModel, examples: Examples) -> Self:
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

    def plan(self, batches: Sequence[NDArray[np.int64]], seed: tuple[int, ...] | None = None) -> None:
        """Announce the batches that `inputs` returns next, so that workers decode those of a stream in advance.

        Args:
            batches: Indices of the images of each batch.
            seed: Seed of the augmentation of streamed images, which depends on it and on the image alone. Default: no
                augmentation.
        """
        self._seed = seed
        if self.stream is not None and self.features is None:
            self.stream.plan(batches, seed)

    def inputs(
        self, indices: NDArray[np.int64], augment: str = "none", rng: np.random.Generator | None = None
    ) -> Tensor:
        """Return the model inputs of some images.

        Args:
            indices: Indices of the images, or of their draws, see `number_draws`.
            augment: Text of the augmentation. What mixes images does nothing here. Default: none.
            rng: Random generator of the augmentation, which needs one. Default: none.

        Returns:
            Normalized images, (batch, 3, size, size), or cached features, (batch, d). Of several cached views of an
            image, augmentation takes one at random.

        Raises:
            SpecError: There is an augmentation and no generator.
        """
        if rng is None:
            if augment != "none" and self.stream is None:
                raise SpecError(f"augment is {augment!r} and rng is None; give a generator, which draws the changes")
            rng = np.random.default_rng(0)  # from which nothing is drawn
        draws, indices = indices, indices % len(self)
        if self.features is not None:
            views = 0 if augment == "none" else torch.from_numpy(rng.integers(len(self.features), size=len(indices)))
            return self.features[views, torch.from_numpy(indices)].to(self.device)
        if self.stream is not None:
            pixels = torch.from_numpy(self.stream.load(draws, None if augment == "none" else self._seed))
            return self.preprocessing.normalize(_to_device(pixels, self.device))
        augmentation = parse_augmentation(augment)
        if augmentation.crop is not None:
            pixels = self._random_crops(indices, augmentation.crop, rng)
        else:
            pixels = self._images.gather(indices)
            start, size = (pixels.shape[-1] - self.preprocessing.size) // 2, self.preprocessing.size
            pixels = pixels[..., start : start + size, start : start + size]
        if augmentation.flips:
            pixels = self._flip(pixels, rng)
        of_image = ImageAugmentation(augmentation, self.preprocessing)
        if of_image.changes_pixels:
            pixels = torch.stack([of_image.change_pixels(image, rng) for image in pixels])
        return self.preprocessing.normalize(pixels)

    def targets(self, indices: NDArray[np.int64]) -> Tensor:
        """Return the labels of some images.

        Args:
            indices: Indices of the images, or of their draws.

        Returns:
            Labels on the CPU, int64 (batch,), or floats (batch, ...).
        """
        return self.labels[torch.from_numpy(indices % len(self))]

    def _random_crops(self, indices: NDArray[np.int64], name: str, rng: np.random.Generator) -> Tensor:
        """Crop each image anywhere, at its size or resized: uint8 (batch, 3, size, size)."""
        size, crops = self.preprocessing.size, []
        for index in indices:
            crop = self._oversized.crop(index, *random_box(self._oversized.images[index].shape[1:], size, name, rng))
            if name == "random_resized_crop":
                crop = resize_crop(crop.to(self.device), size)
            crops.append(crop)
        return _to_device(torch.stack(crops), self.device)

    def _flip(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """Mirror half of the images, at random."""
        flipped = torch.from_numpy(rng.random(len(pixels)) < 0.5).to(self.device)
        return torch.where(flipped[:, None, None, None], pixels.flip(-1), pixels)


class _PixelStore:
    """Pixels, which are copied to a GPU once if they take at most a quarter of its free memory."""

    def __init__(self, images: NDArray[np.uint8] | WholeImages, device: torch.device) -> None:
        self.device = device
        self.images: Any = images
        pixels = images.pixels if isinstance(images, WholeImages) else images
        if device.type == "cuda" and 4 * pixels.nbytes <= torch.cuda.mem_get_info(device)[0]:
            on_device = torch.from_numpy(np.array(pixels)).to(device)
            self.images = replace(images, pixels=on_device) if isinstance(images, WholeImages) else on_device

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        """Return pixels of images of one shape, uint8 (batch, 3, side, side), on the device."""
        if isinstance(self.images, Tensor):
            return self.images[torch.from_numpy(indices).to(self.device)]
        return _to_device(torch.from_numpy(self.images[indices]), self.device)

    def crop(self, index: int, corner: NDArray[np.int64], sides: NDArray[np.int64]) -> Tensor:
        """Return a part of one image, uint8 (3, height, width), where the pixels are."""
        (top, left), (height, width) = corner, sides
        part = self.images[index][:, top : top + height, left : left + width]
        return part if isinstance(part, Tensor) else torch.from_numpy(part.copy())


def _to_device(pixels: Tensor, device: torch.device) -> Tensor:
    """Return pixels on a device."""
    if device.type == "cuda" and not pixels.is_cuda:
        return pixels.pin_memory().to(device, non_blocking=True)
    return pixels.to(device)
