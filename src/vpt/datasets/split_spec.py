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

from vpt.datasets.prepared.records import Records
from vpt.errors import DataError

_SLICE = re.compile(r"(?P<part>\w+)(?:\[(?P<start>\d+%?)?:(?P<stop>\d+%?)?\])?")


def published_order(keys: Sequence[str], part: str) -> NDArray[np.int64]:
    """Positions of `keys` in the order of TensorFlow Datasets. part: its name of the split, such as "validation"."""
    salt = hashlib.md5(part.encode(), usedforsecurity=False)

    def rank(i: int) -> bytes:
        salted = salt.copy()
        salted.update(keys[i].encode())
        return salted.digest()

    return np.array(sorted(range(len(keys)), key=rank), dtype=np.int64)


@dataclass(frozen=True)
class Cut:
    """How published parts become train, val and test.

    train, val, test: a published part, or a slice of it in published order: "train[:90%]", "train[600:]".
    first: how many of train and of val are taken, from the start; None for all.
    """

    train: str
    val: str
    test: str
    first: tuple[int, int] | None = None

    def apply(self, parts: Mapping[str, Records]) -> dict[str, Records]:
        """train, val and test. Raises DataError where a published part is not there."""
        slices = {"train": self.train, "val": self.val, "test": self.test}
        sources = {_part(text) for text in slices.values()}
        missing = sorted(sources - set(parts))
        if missing:
            raise DataError(f"the source has no {' and no '.join(missing)} part; it has {', '.join(sorted(parts))}")
        orders = {source: published_order(parts[source].keys, source) for source in sources}
        cut = {}
        for name, text in slices.items():
            source = _part(text)
            start, stop = _bounds(text, len(parts[source]))
            chosen = orders[source][start:stop]
            cut[name] = parts[source].pick(np.sort(chosen[: self._most(name)]))
        return cut

    def sizes(self, published: Mapping[str, int | None]) -> dict[str, int | None]:
        """Images of train, val and test; None where the publisher's count is not known."""
        sizes: dict[str, int | None] = {}
        for name, text in (("train", self.train), ("val", self.val), ("test", self.test)):
            count = published[_part(text)]
            if count is None:
                sizes[name] = None
            else:
                start, stop = _bounds(text, count)
                sizes[name] = len(range(start, stop)[: self._most(name)])
        return sizes

    def _most(self, name: str) -> int | None:
        return None if self.first is None else {"train": self.first[0], "val": self.first[1]}.get(name)


def _match(text: str) -> re.Match[str]:
    match = _SLICE.fullmatch(text)
    if match is None:
        raise DataError(f"the slice {text!r} cannot be read; write it like 'train[:90%]' or 'train[600:]'")
    return match


def _part(text: str) -> str:
    return _match(text)["part"]


def _bounds(text: str, count: int) -> tuple[int, int]:
    """First and last position of a slice of `count` images; a share is rounded to the nearest image."""
    start, stop = _match(text)["start"] or "0", _match(text)["stop"] or "100%"
    first, last = (round(int(v[:-1]) * count / 100) if v.endswith("%") else int(v) for v in (start, stop))
    return first, last
