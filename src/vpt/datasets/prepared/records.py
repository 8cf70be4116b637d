"""What a layout reader returns: the images of each published part, not written anywhere yet."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt.core.text import lines, number
from vpt.errors import DataError


@dataclass(frozen=True, eq=False)
class Records:
    """Images of one published part, in the order of their source.

    names: n file names as lists of the publisher have them, with suffix. labels: whole numbers (n,), kept as int64.
    encoded: position -> bytes of an image file, of the kind the suffix of its name says.
    keys: n texts by which TensorFlow Datasets shuffles the part (see `order`); left out, the names.
    """

    names: tuple[str, ...]
    labels: NDArray[Any]
    encoded: Callable[[int], bytes]
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.keys:
            object.__setattr__(self, "keys", self.names)
        object.__setattr__(self, "labels", np.asarray(self.labels).astype(np.int64))
        if not len(self.names) == len(self.labels) == len(self.keys):
            raise DataError(f"{len(self.names)} images with {len(self.labels)} labels; the source is not complete")

    def __len__(self) -> int:
        return len(self.names)

    def pick(self, positions: Sequence[int] | NDArray[np.int64]) -> Records:
        """The images at these positions, in this order."""
        chosen = [int(i) for i in positions]
        return Records(
            tuple(self.names[i] for i in chosen),
            self.labels[np.array(chosen, dtype=np.int64)],
            lambda i: self.encoded(chosen[i]),
            tuple(self.keys[i] for i in chosen),
        )

    def joined(self, other: Records) -> Records:
        """These images followed by the others."""
        here = len(self)
        return Records(
            self.names + other.names,
            np.concatenate([self.labels, other.labels]),
            lambda i: self.encoded(i) if i < here else other.encoded(i - here),
            self.keys + other.keys,
        )


@dataclass(frozen=True, eq=False)
class Listing:
    """All that a source holds of one task.

    classes: name of each label. parts: "train", "validation" and "test", those that the publisher has.
    folder: where lists of a split may lie beside the data. notes: what a user of the figures must know.
    """

    classes: tuple[str, ...]
    parts: dict[str, Records]
    folder: Path | None = None
    notes: tuple[str, ...] = ()


def from_files(
    root: Path, names: Sequence[str], labels: Sequence[int] | NDArray[Any], keys: Sequence[str] = ()
) -> Records:
    """Image files `root / name`, taken byte for byte. Raises DataError naming those that are not there."""
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise DataError(f"{root}: {number(len(missing), 'listed image')} not there:{lines(missing)}")
    return Records(
        tuple(str(PurePosixPath(name)) for name in names),
        np.asarray(labels),
        lambda i: (root / names[i]).read_bytes(),
        tuple(keys),
    )


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An image (height, width) or (height, width, 3) as the bytes of a PNG file: nothing is lost."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return buffer.getvalue()


def numbered(prefix: str, count: int, digits: int) -> tuple[str, ...]:
    """Names for images that their publisher keeps in one array: "train_00007.png"."""
    return tuple(f"{prefix}_{i:0{digits}d}.png" for i in range(count))


def indices(count: int) -> tuple[str, ...]:
    """Positions as keys."""
    return tuple(map(str, range(count)))
