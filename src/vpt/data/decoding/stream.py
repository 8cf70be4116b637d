"""Images that are decoded when a batch of them is asked for, by worker processes: data of any size."""

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from vpt.data.decoding.batches import CHUNK, Augmentation, BatchDecoder, BatchRequest, ChunkDecoder, Findings
from vpt.data.images.inputs import ImageInput
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError

_T = TypeVar("_T")
_MAX_WORKERS = 8
_PREFETCHED = 2  # chunks that each worker decodes in advance


def default_workers() -> int:
    """Return the number of worker processes: the cores for each process of `torchrun`, at most 8."""
    return max(1, min(_MAX_WORKERS, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


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
        self._decoder = BatchDecoder(sources, preprocessing, augmentation)
        self._planned: list[BatchRequest] = []
        self._next = 0
        self._chunks: list[tuple[int, BatchRequest]] = []
        self._loaded: Iterator[tuple[int, Findings]] = iter(())
        self._worker: ChunkDecoder | None = None
        self._loader: DataLoader[tuple[int, Findings]] | None = None
        if workers:
            # One more than are on the way: a chunk is copied before a worker writes the one that takes its place.
            self._worker = ChunkDecoder(self._decoder, workers * _PREFETCHED + 1)
            self._loader = DataLoader(
                self._worker, batch_size=None, sampler=self._chunks, num_workers=workers, prefetch_factor=_PREFETCHED,
                collate_fn=keep, worker_init_fn=init_worker, persistent_workers=True,
                generator=torch.Generator(),  # else it draws from torch's own, and so does dropout
            )  # fmt: skip

    def plan(self, requests: Sequence[BatchRequest]) -> None:
        """Announce the batches that are loaded next, which replace those announced before.

        Args:
            requests: The batches, in order.
        """
        if self._loader is not None:
            self._planned[:] = requests
            self._chunks[:] = enumerate(chunk for request in requests for chunk in request.chunks())
            self._next, self._loaded = 0, iter(self._loader)

    def load(self, request: BatchRequest) -> LoadedBatch:
        """Return a batch: the next one announced or, for any other, one that is decoded in this process.

        Args:
            request: The batch.

        Returns:
            The images.
        """
        pixels = np.empty((len(request.positions), *self._decoder.shape), np.uint8)
        is_announced = self._next < len(self._planned) and self._planned[self._next].equals(request)
        if self._worker is None or not is_announced:
            return LoadedBatch(pixels, *self._decoder.decode(request, pixels))
        self._next += 1
        notes, faults = dict[int, list[str]](), dict[int, str]()
        for start in range(0, len(pixels), CHUNK):
            number, (notes_of_chunk, faults_of_chunk) = next(self._loaded)
            part = pixels[start : start + CHUNK]
            part[:] = self._worker.chunk(number)[: len(part)]
            notes |= {start + index: found for index, found in notes_of_chunk.items()}
            faults |= {start + index: fault for index, fault in faults_of_chunk.items()}
        return LoadedBatch(pixels, notes, faults)


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
            batches: Indices of the images of each batch, or of their draws, see `load`.
            seed: Seed of the augmentation. Default: images as they are.
        """
        self.loader.plan([self._request(indices, seed) for indices in batches])

    def _request(self, indices: NDArray[np.int64], seed: tuple[int, ...] | None) -> BatchRequest:
        draws, images = np.divmod(indices, len(self))
        return BatchRequest(self.positions[images], seed, draws if draws.any() else None)

    def load(self, indices: NDArray[np.int64], seed: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
        """Return a batch.

        Args:
            indices: Indices of the images; i + k * n is image i of n, drawn for the k-th time again.
            seed: Seed of the augmentation. Default: images as they are.

        Returns:
            uint8 (batch, 3, size, size).

        Raises:
            DataError: A file has changed since it was checked.
        """
        loaded = self.loader.load(self._request(indices, seed))
        for index, fault in loaded.faults.items():
            name = self.names[indices[index] % len(self)]
            raise DataError(
                f"{name}: {fault}; it was sound when it was checked, so restore it, or begin anew with --overwrite"
            )
        return loaded.pixels


def init_worker(worker: int) -> None:
    """Prepare a worker process.

    Args:
        worker: Its number.
    """
    gc.freeze()  # collecting garbage writes to every object, which would copy the memory of the parent process


def keep(found: _T) -> _T:
    """Return what a worker returns as it is: arrays come through a pipe, while tensors take /dev/shm.

    Args:
        found: What it returns.

    Returns:
        The same.
    """
    return found
