"""Train, val and test of a benchmark task in terms of published splits.

VTAB-1k was taken from files of TensorFlow Datasets, which are ordered by the MD5 of split name and key. That order is
computed here without TensorFlow. It reproduces the 800 and 200 names that are published for 13 tasks.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpt.datasets.prepared import ImageRecords
from vpt.errors import DataError

_SLICE = re.compile(r"(?P<split>\w+)(?:\[(?P<start>\d+%?)?:(?P<stop>\d+%?)?\])?")


def published_order(keys: Sequence[str], split_name: str) -> NDArray[np.int64]:
    """Return the order of TensorFlow Datasets.

    Args:
        keys: Key of each image.
        split_name: Name of the split in TensorFlow Datasets, such as "validation".

    Returns:
        Indices into `keys`, int64 (n,).
    """
    ranks = [hashlib.md5(f"{split_name}{key}".encode(), usedforsecurity=False).digest() for key in keys]
    return np.array(sorted(range(len(keys)), key=ranks.__getitem__), dtype=np.int64)


@dataclass(frozen=True)
class SplitSpec:
    """Train, val and test as slices of published splits.

    Args:
        train: A published split or a slice of it in published order, such as "train[:90%]" or "train[600:]".
        val: The same for val.
        test: The same for test.
        limits: Maximum numbers of images of train and val, from the start. Default: no limits.
    """

    train: str
    val: str
    test: str
    limits: tuple[int, int] | None = None

    @property
    def slices(self) -> dict[str, str]:
        """The slices by name: train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def apply(self, splits: Mapping[str, ImageRecords]) -> dict[str, ImageRecords]:
        """Return train, val and test.

        Args:
            splits: Published split to its images.

        Returns:
            Split ("train", "val", "test") to its images.

        Raises:
            DataError: A published split is missing.
        """
        sources = {name: source_split(text) for name, text in self.slices.items()}
        missing = sorted(set(sources.values()) - set(splits))
        if missing:
            raise DataError(f"the source has no {' and no '.join(missing)} split; it has {', '.join(sorted(splits))}")
        orders = {source: published_order(splits[source].keys, source) for source in set(sources.values())}
        return {
            name: splits[source].select(np.sort(orders[source][self._positions(name, len(splits[source]))]))
            for name, source in sources.items()
        }

    def sizes(self, published: Mapping[str, int | None]) -> dict[str, int | None]:
        """Return the number of images of train, val and test.

        Args:
            published: Published split to its number of images, or None.

        Returns:
            Split to number of images; None if unknown.
        """
        counts = {name: published[source_split(text)] for name, text in self.slices.items()}
        return {name: None if n is None else len(range(n)[self._positions(name, n)]) for name, n in counts.items()}

    def _positions(self, name: str, count: int) -> slice:
        """Return the positions of a split in the order of `count` images. Percentages are rounded."""
        match = _match(self.slices[name])
        start, stop = match["start"] or "0", match["stop"] or "100%"
        first, last = (round(int(v[:-1]) * count / 100) if v.endswith("%") else int(v) for v in (start, stop))
        limit = None if self.limits is None else dict(zip(("train", "val"), self.limits, strict=True)).get(name)
        return slice(first, last if limit is None else min(last, first + limit))


def source_split(text: str) -> str:
    """Return the published split of a slice.

    Args:
        text: A slice, such as "train[:90%]".

    Returns:
        The name of the split.
    """
    return _match(text)["split"]


def _match(text: str) -> re.Match[str]:
    match = _SLICE.fullmatch(text)
    if match is None:
        raise DataError(f"the slice {text!r} cannot be read; write it like 'train[:90%]' or 'train[600:]'")
    return match
