"""Images that are decoded when a batch of them is asked for, by worker processes: data of any size.

What a batch holds depends on its request alone, neither on the worker nor on earlier requests. An epoch can therefore
be repeated bit by bit, with any number of workers.
"""

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from vpt.data.image_files import UnreadableImageError, capture_warnings
from vpt.data.image_inputs import ImageInput, read_image
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError

_T = TypeVar("_T")
_MAX_WORKERS = 8

Augmentation = Callable[[Image.Image, np.random.Generator], NDArray[np.uint8]]


def default_workers() -> int:
    """Return the number of worker processes: the cores for each process of `torchrun`, at most 8."""
    return max(1, min(_MAX_WORKERS, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


@dataclass(frozen=True, eq=False)
class BatchRequest:
    """A batch of images.

    Attributes:
        positions: Positions of the images among those of the loader, int64 (batch,).
        seed: Seed of the augmentation, together with the position of an image; None for images as they are.
    """

    positions: NDArray[np.int64]
    seed: tuple[int, ...] | None = None

    def equals(self, other: "BatchRequest") -> bool:
        """Return True for a request of the same images, augmented alike."""
        return self.seed == other.seed and np.array_equal(self.positions, other.positions)


@dataclass(frozen=True, eq=False)
class LoadedBatch:
    """Decoded images.

    Attributes:
        pixels: uint8 (batch, 3, size, size); zeros for an image that cannot be used.
        notes: Index in the batch to the notes on an image.
        faults: Index in the batch to the reason why an image cannot be used.
    """

    pixels: NDArray[np.uint8]
    notes: Mapping[int, list[str]]
    faults: Mapping[int, str]


class ImageLoader:
    """Images that worker processes decode, in the order in which batches are announced."""

    def __init__(
        self,
        sources: Sequence[Sequence[ImageInput] | NDArray[np.uint8]],
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        workers: int = 0,
    ) -> None:
        """Prepare the workers, which start with the first plan.

        Args:
            sources: The images of each split, one after the other.
            preprocessing: Resize options.
            augmentation: Function of an image and a random generator that returns uint8 (3, size, size), for requests
                with a seed. Default: none.
            workers: Number of processes; 0 decodes in this one. Default: 0.
        """
        self._decoder = _Decoder(sources, preprocessing, augmentation)
        self._planned: list[BatchRequest] = []
        self._batches: Iterator[LoadedBatch] = iter(())
        self._next = 0
        self._loader: DataLoader[LoadedBatch] = DataLoader(
            self._decoder, batch_size=None, sampler=self._planned, num_workers=workers, collate_fn=_identity,
            worker_init_fn=_init_worker, persistent_workers=workers > 0,
            generator=torch.Generator(),  # else it draws from torch's own, and so does dropout
        )  # fmt: skip

    def plan(self, requests: Sequence[BatchRequest]) -> None:
        """Announce the batches that are loaded next, which replace those announced before.

        Args:
            requests: The batches, in order.
        """
        self._planned[:] = requests
        self._next, self._batches = 0, iter(self._loader)

    def load(self, request: BatchRequest) -> LoadedBatch:
        """Return a batch: the next one announced or, for any other, one that is decoded in this process.

        Args:
            request: The batch.

        Returns:
            The images.
        """
        if self._next < len(self._planned) and self._planned[self._next].equals(request):
            self._next += 1
            return next(self._batches)
        return self._decoder[request]


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """The images of a split in a loader.

    Attributes:
        loader: The loader.
        positions: Positions of the images in the loader, int64 (n,).
        names: Text of each image for messages.
        digest: SHA-256 of the decoded images.
        folder: Folder for what is computed from the images and too large for memory.
        augment: Text of the augmentation that the loader applies to requests with a seed. Default: "none".
    """

    loader: ImageLoader
    positions: NDArray[np.int64]
    names: Sequence[str]
    digest: bytes
    folder: Path
    augment: str = "none"

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.positions)

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """Return one image, uint8 (3, size, size), or several, as of an array."""
        indices = np.arange(len(self))[index]
        images = self.load(np.atleast_1d(indices))
        return images if np.ndim(indices) else images.squeeze(0)

    def plan(self, batches: Sequence[NDArray[np.int64]], seed: tuple[int, ...] | None = None) -> None:
        """Announce the batches that are loaded next.

        Args:
            batches: Indices of the images of each batch.
            seed: Seed of the augmentation. Default: images as they are.
        """
        self.loader.plan([BatchRequest(self.positions[indices], seed) for indices in batches])

    def load(self, indices: NDArray[np.int64], seed: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
        """Return a batch.

        Args:
            indices: Indices of the images.
            seed: Seed of the augmentation. Default: images as they are.

        Returns:
            uint8 (batch, 3, size, size).

        Raises:
            DataError: A file has changed since it was checked.
        """
        loaded = self.loader.load(BatchRequest(self.positions[indices], seed))
        for index, fault in loaded.faults.items():
            raise DataError(
                f"{self.names[indices[index]]}: {fault}; it was sound when it was checked, so restore it, or begin "
                "anew with --overwrite"
            )
        return loaded.pixels


class _Decoder(TorchDataset[LoadedBatch]):
    """What runs in a worker: request in, batch out."""

    def __init__(
        self,
        sources: Sequence[Sequence[ImageInput] | NDArray[np.uint8]],
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
    ) -> None:
        self.sources = [_compact(images) for images in sources]
        self.starts = np.cumsum([0, *map(len, sources)])
        self.preprocessing = preprocessing
        self.augmentation = augmentation

    def __getitem__(self, request: BatchRequest) -> LoadedBatch:
        size = self.preprocessing.size
        pixels = np.zeros((len(request.positions), 3, size, size), np.uint8)
        notes: dict[int, list[str]] = {}
        faults: dict[int, str] = {}
        with capture_warnings():
            for index, position in enumerate(request.positions.tolist()):
                try:
                    image, found = read_image(self._find(position), self.preprocessing.value_range)
                except UnreadableImageError as error:
                    faults[index] = str(error)
                    continue
                if found:
                    notes[index] = found
                if request.seed is None or self.augmentation is None:
                    pixels[index] = self.preprocessing.resize_image(image)
                else:
                    pixels[index] = self.augmentation(image, np.random.default_rng((*request.seed, position)))
        return LoadedBatch(pixels, notes, faults)

    def _find(self, position: int) -> ImageInput:
        source = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.sources[source][position - int(self.starts[source])]


def _compact(images: Sequence[ImageInput] | NDArray[np.uint8]) -> Sequence[ImageInput] | NDArray[np.uint8]:
    """Return images in a form that workers share with the process that starts them."""
    if isinstance(images, tuple) and all(isinstance(image, Path) for image in images):
        return _FilePaths(images)
    return images


class _FilePaths(Sequence[Path]):
    """Paths in one array.

    A worker shares the memory of the process that started it until one of them writes, and reading a Python object
    writes its reference count: a list of paths would be copied page by page into every worker.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._encoded = np.array([os.fsencode(path) for path in paths])

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]
        return Path(os.fsdecode(self._encoded[index].item()))


def _init_worker(worker: int) -> None:
    gc.freeze()  # collecting garbage writes to every object, which would copy the memory of the parent process


def _identity(batch: _T) -> _T:
    """Leave pixels an array: it comes through a pipe, while a tensor takes shared memory, which containers lack."""
    return batch
