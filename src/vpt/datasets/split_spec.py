"""Which images make up train, val and test of a task.

VTAB-1k was cut from what TensorFlow Datasets wrote, whose order is that of the MD5 of split name and key. Neither
TensorFlow nor the data are needed to repeat it: the 800 and 200 names that were published for 13 tasks come out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpt.datasets.prepared.records import ImageRecords
from vpt.errors import DataError

_SLICE = re.compile(r"(?P<split>\w+)(?:\[(?P<start>\d+%?)?:(?P<stop>\d+%?)?\])?")


def published_order(keys: Sequence[str], split_name: str) -> NDArray[np.int64]:
    """Positions of `keys` in the order of TensorFlow Datasets. split_name: its name of the split, such as "validation"."""
    prefix = hashlib.md5(split_name.encode(), usedforsecurity=False)

    def rank(i: int) -> bytes:
        digest = prefix.copy()
        digest.update(keys[i].encode())
        return digest.digest()

    return np.array(sorted(range(len(keys)), key=rank), dtype=np.int64)


@dataclass(frozen=True)
class SplitSpec:
    """How published splits become train, val and test.

    train, val, test: a published split, or a slice of it in published order: "train[:90%]", "train[600:]".
    limits: how many of train and of val are taken, from the start; None for all.
    """

    train: str
    val: str
    test: str
    limits: tuple[int, int] | None = None

    def apply(self, splits: Mapping[str, ImageRecords]) -> dict[str, ImageRecords]:
        """train, val and test. Raises DataError where a published split is not there."""
        slices = {"train": self.train, "val": self.val, "test": self.test}
        source_splits = {_split_name(text) for text in slices.values()}
        missing = sorted(source_splits - set(splits))
        if missing:
            raise DataError(f"the source has no {' and no '.join(missing)} split; it has {', '.join(sorted(splits))}")
        orders = {source: published_order(splits[source].keys, source) for source in source_splits}
        result = {}
        for name, text in slices.items():
            source = _split_name(text)
            start, stop = _bounds(text, len(splits[source]))
            indices = orders[source][start:stop]
            result[name] = splits[source].select(np.sort(indices[: self._limit(name)]))
        return result

    def sizes(self, published: Mapping[str, int | None]) -> dict[str, int | None]:
        """Images of train, val and test; None where the publisher's count is not known."""
        sizes: dict[str, int | None] = {}
        for name, text in (("train", self.train), ("val", self.val), ("test", self.test)):
            count = published[_split_name(text)]
            if count is None:
                sizes[name] = None
            else:
                start, stop = _bounds(text, count)
                sizes[name] = len(range(start, stop)[: self._limit(name)])
        return sizes

    def _limit(self, name: str) -> int | None:
        return None if self.limits is None else {"train": self.limits[0], "val": self.limits[1]}.get(name)


def _match(text: str) -> re.Match[str]:
    match = _SLICE.fullmatch(text)
    if match is None:
        raise DataError(f"the slice {text!r} cannot be read; write it like 'train[:90%]' or 'train[600:]'")
    return match


def _split_name(text: str) -> str:
    return _match(text)["split"]


def _bounds(text: str, count: int) -> tuple[int, int]:
    """First and last position of a slice of `count` images; a share is rounded to the nearest image."""
    start, stop = _match(text)["start"] or "0", _match(text)["stop"] or "100%"
    first, last = (round(int(v[:-1]) * count / 100) if v.endswith("%") else int(v) for v in (start, stop))
    return first, last
