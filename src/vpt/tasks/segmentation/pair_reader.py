"""Decoded images and masks, kept in memory from their first use on."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vpt.data.decoding.arrays import MEMORY_LIMIT
from vpt.data.masks.dataset import SegmentationDataset
from vpt.data.masks.files import load_pair
from vpt.data.masks.layouts import ImageMaskPairs

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # image (3, height, width), classes (height, width)
_BYTES_PER_PIXEL = 4  # of an image and its mask


def decoded_bytes(dataset: SegmentationDataset, splits: Sequence[str]) -> int:
    """Return the bytes of the decoded images and masks of some splits.

    Args:
        dataset: The images and masks.
        splits: Names of splits; those that the dataset lacks have none.

    Returns:
        The number of bytes.
    """
    names = (name for split in splits if split in dataset.splits for name in dataset.splits[split].names)
    sizes = (dataset.mask_stats[name].size for name in names)
    return _BYTES_PER_PIXEL * sum(width * height for width, height in sizes)


class PairReader:
    """Reads images and masks, and keeps those of some splits, for all trainings that share the reader."""

    def __init__(self, dataset: SegmentationDataset, kept: Sequence[str] = ()) -> None:
        """Prepare the reader, which has read nothing yet.

        Args:
            dataset: The images and masks.
            kept: Splits whose pairs stay in memory, at most `vpt.data.decoding.arrays.MEMORY_LIMIT` over the processes
                of a machine; others are read again. Default: none.
        """
        self._format = dataset.lookup_table, dataset.mask_format, dataset.value_range
        self._kept_names = frozenset(name for split in kept if split in dataset.splits
                                     for name in dataset.splits[split].names)  # fmt: skip
        self._pairs: dict[str, Pair] = {}
        self._free = MEMORY_LIMIT // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # bytes

    def read(self, pairs: ImageMaskPairs, index: int) -> Pair:
        """Return an image and its mask, see `load_pair`. Call it inside `capture_warnings`.

        Args:
            pairs: Pairs of the dataset, or some of them.
            index: Index of the pair.

        Returns:
            The image and its classes, which may be shared, so do not write to them.
        """
        name = pairs.names[index]
        if name in self._pairs:
            return self._pairs[name]
        pair = load_pair(pairs, index, *self._format)
        size = sum(array.nbytes for array in pair)
        if name in self._kept_names and size <= self._free:
            self._pairs[name] = pair
            self._free -= size
        return pair
