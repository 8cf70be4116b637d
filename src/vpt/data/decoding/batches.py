"""Requests of a batch of images, and what decodes them, in this process or in workers.

A batch depends on its request alone, neither on the worker nor on earlier requests. An epoch can therefore be repeated
bit by bit, with any number of workers.
"""

import ctypes
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

from vpt.data.images.file_paths import FilePaths
from vpt.data.images.files import UnreadableImageError, capture_warnings
from vpt.data.images.inputs import ImageInput, read_image
from vpt.data.preprocessing import Preprocessing

CHUNK = 16  # images that a worker decodes at once

Augmentation = Callable[[Image.Image, np.random.Generator], NDArray[np.uint8]]
Findings = tuple[dict[int, list[str]], dict[int, str]]  # index of an image to the notes on it, and to its fault


@dataclass(frozen=True, eq=False)
class BatchRequest:
    """A batch of images.

    Attributes:
        positions: Positions of the images among those of the loader, int64 (batch,).
        seed: Seed of the augmentation, together with the position of an image; None for images as they are.
        draws: How often each image was drawn in the epoch before, int64 (batch,), which is part of the seed of an image
            that is drawn again. Default: all are drawn for the first time.
    """

    positions: NDArray[np.int64]
    seed: tuple[int, ...] | None = None
    draws: NDArray[np.int64] | None = None

    def equals(self, other: "BatchRequest") -> bool:
        """Return True for a request of the same images, augmented alike."""
        return (
            self.seed == other.seed
            and np.array_equal(self.positions, other.positions)
            and np.array_equal(self.again, other.again)
        )

    @property
    def again(self) -> NDArray[np.int64]:
        """Number of earlier draws of each image."""
        return np.zeros(len(self.positions), np.int64) if self.draws is None else self.draws

    def chunks(self) -> "Iterator[BatchRequest]":
        """Yield the requests of a few images each that this one consists of."""
        for start in range(0, len(self.positions), CHUNK):
            part = slice(start, start + CHUNK)
            draws = None if self.draws is None else self.draws[part]
            yield replace(self, positions=self.positions[part], draws=draws)


class BatchDecoder:
    """The images of all splits, decoded on request."""

    def __init__(
        self,
        sources: Sequence[Sequence[ImageInput] | NDArray[np.uint8]],
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
    ) -> None:
        """Store the images in a form that workers share.

        Args:
            sources: The images of each split, one after the other.
            preprocessing: Resize options.
            augmentation: Function of an image and a random generator, for requests with a seed; None for none.
        """
        self.sources: list[Sequence[ImageInput] | NDArray[np.uint8]] = [_compact(images) for images in sources]
        self.starts: NDArray[np.int64] = np.cumsum([0, *map(len, sources)], dtype=np.int64)
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.shape: tuple[int, int, int] = (3, preprocessing.size, preprocessing.size)

    def decode(self, request: BatchRequest, pixels: NDArray[np.uint8]) -> Findings:
        """Decode and augment the images of a request.

        Args:
            request: The images.
            pixels: Receives them, uint8 (at least batch, 3, size, size); zeros for an image that cannot be used.

        Returns:
            Notes and faults.
        """
        notes, faults = dict[int, list[str]](), dict[int, str]()
        with capture_warnings():
            drawn = zip(request.positions.tolist(), request.again.tolist(), strict=True)
            for index, (position, draw) in enumerate(drawn):
                try:
                    image, found = read_image(self._find(position), self.preprocessing.value_range)
                except UnreadableImageError as error:
                    faults[index] = str(error)
                    pixels[index] = 0
                    continue
                if found:
                    notes[index] = found
                if request.seed is None or self.augmentation is None:
                    pixels[index] = self.preprocessing.resize_image(image)
                else:
                    seed = (*request.seed, position, *([draw] if draw else []))
                    pixels[index] = self.augmentation(image, np.random.default_rng(seed))
        return notes, faults

    def _find(self, position: int) -> ImageInput:
        source = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.sources[source][position - int(self.starts[source])]


class ChunkDecoder(TorchDataset[tuple[int, Findings]]):
    """The decoder in a worker process: pixels are written to shared memory, and what else is found is returned.

    A batch in a pipe is copied five times. The standard library takes shared memory from /dev/shm if there is enough,
    as in few containers, else from a file.
    """

    def __init__(self, decoder: BatchDecoder, num_chunks: int) -> None:
        """Reserve the memory.

        Args:
            decoder: The decoder.
            num_chunks: Number of chunks that have memory of their own.
        """
        self._decoder = decoder
        self._shape = (num_chunks, CHUNK, *decoder.shape)
        self._memory = multiprocessing.RawArray(ctypes.c_uint8, math.prod(self._shape))

    def chunk(self, number: int) -> NDArray[np.uint8]:
        """Return the memory of a chunk, which a later one takes over.

        Args:
            number: Number of the chunk in a plan.

        Returns:
            uint8 (`CHUNK`, 3, size, size).
        """
        pixels = np.ctypeslib.as_array(self._memory).reshape(self._shape)
        chunk: NDArray[np.uint8] = pixels[number % self._shape[0]]
        return chunk

    def __getitem__(self, item: tuple[int, BatchRequest]) -> tuple[int, Findings]:
        """Decode a chunk into its memory."""
        number, request = item
        return number, self._decoder.decode(request, self.chunk(number))


def _compact(images: Sequence[ImageInput] | NDArray[np.uint8]) -> Sequence[ImageInput] | NDArray[np.uint8]:
    """Return images in a form that workers share with the process that starts them."""
    if isinstance(images, FilePaths) or (
        isinstance(images, tuple) and all(isinstance(image, Path) for image in images)
    ):
        return _EncodedPaths(images)
    return images


class _EncodedPaths(Sequence[Path]):
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
