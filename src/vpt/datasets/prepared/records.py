"""What a layout reader returns: the images of each published split, not written anywhere yet."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt.core.text import bullets, pluralize
from vpt.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageRecords:
    """Images of one published split, in the order of their source.

    names: n file names as lists of the publisher have them, with suffix. labels: whole numbers (n,), kept as int64.
    encoded: position -> bytes of an image file, of the kind the suffix of its name says.
    keys: n texts by which TensorFlow Datasets shuffles the split (see `published_order`); left out, the names.
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

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> ImageRecords:
        """The images at these positions, in this order."""
        selected = [int(i) for i in indices]
        return ImageRecords(
            tuple(self.names[i] for i in selected),
            self.labels[np.array(selected, dtype=np.int64)],
            lambda i: self.encoded(selected[i]),
            tuple(self.keys[i] for i in selected),
        )

    def concat(self, other: ImageRecords) -> ImageRecords:
        """These images followed by the others."""
        num_first = len(self)
        return ImageRecords(
            self.names + other.names,
            np.concatenate([self.labels, other.labels]),
            lambda i: self.encoded(i) if i < num_first else other.encoded(i - num_first),
            self.keys + other.keys,
        )


@dataclass(frozen=True, eq=False)
class SourceData:
    """All that a source holds of one task.

    classes: name of each label. splits: "train", "validation" and "test", those that the publisher has.
    folder: where lists of a split may lie beside the data. notes: what a user of the figures must know.
    """

    classes: tuple[str, ...]
    splits: dict[str, ImageRecords]
    folder: Path | None = None
    notes: tuple[str, ...] = ()


def records_from_files(
    root: Path, names: Sequence[str], labels: Sequence[int] | NDArray[Any], keys: Sequence[str] = ()
) -> ImageRecords:
    """Image files `root / name`, taken byte for byte. Raises DataError naming those that are not there."""
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise DataError(f"{root}: {pluralize(len(missing), 'listed image')} not there:{bullets(missing)}")
    return ImageRecords(
        tuple(str(PurePosixPath(name)) for name in names),
        np.asarray(labels),
        lambda i: (root / names[i]).read_bytes(),
        tuple(keys),
    )


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """An image (height, width) or (height, width, 3) as the bytes of a PNG file: nothing is lost."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return buffer.getvalue()


def numbered_names(prefix: str, count: int, digits: int) -> tuple[str, ...]:
    """Names for images that their publisher keeps in one array: "train_00007.png"."""
    return tuple(f"{prefix}_{i:0{digits}d}.png" for i in range(count))


def index_keys(count: int) -> tuple[str, ...]:
    """Positions as keys."""
    return tuple(map(str, range(count)))
