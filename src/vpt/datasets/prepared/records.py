"""Images of published splits as readers return them, before they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt.core.text import bullets, pluralize
from vpt.data.image_files import encode_png
from vpt.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageRecords:
    """Images of one published split, in the order of the source.

    Args:
        names: n file names with suffix, as in the publisher's lists.
        labels: Integers (n,), stored as int64.
        encoded: Function from index to the bytes of an image file, of the format of its suffix.
        keys: n keys by which TensorFlow Datasets orders the split, see `published_order`. Default: the names.

    Raises:
        DataError: The lengths differ.
    """

    names: tuple[str, ...]
    labels: NDArray[Any]
    encoded: Callable[[int], bytes]
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check and convert the fields."""
        if not self.keys:
            object.__setattr__(self, "keys", self.names)
        object.__setattr__(self, "labels", np.asarray(self.labels).astype(np.int64))
        if not len(self.names) == len(self.labels) == len(self.keys):
            raise DataError(
                f"{len(self.names)} images with {len(self.labels)} labels; the source is incomplete, download it again"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> ImageRecords:
        """Return the images at some indices.

        Args:
            indices: Indices of images.

        Returns:
            These images, in this order.
        """
        selected = np.asarray(indices, dtype=np.int64).tolist()
        names, keys = (tuple(texts[i] for i in selected) for texts in (self.names, self.keys))
        return ImageRecords(names, self.labels[selected], lambda i: self.encoded(selected[i]), keys)

    def concat(self, other: ImageRecords) -> ImageRecords:
        """Return these images followed by others.

        Args:
            other: The other images.

        Returns:
            All images.
        """
        num_first = len(self)
        return ImageRecords(
            self.names + other.names,
            np.concatenate([self.labels, other.labels]),
            lambda i: self.encoded(i) if i < num_first else other.encoded(i - num_first),
            self.keys + other.keys,
        )


@dataclass(frozen=True, eq=False)
class SourceData:
    """All images of a source for one task.

    Args:
        classes: Class names.
        splits: Published split ("train", "validation", "test") to its images.
        folder: Folder that may contain lists of a split. Default: none.
        notes: Messages for users of the results.
    """

    classes: tuple[str, ...]
    splits: dict[str, ImageRecords]
    folder: Path | None = None
    notes: tuple[str, ...] = ()


def records_from_files(
    root: Path, names: Sequence[str], labels: Sequence[int] | NDArray[Any], keys: Sequence[str] = ()
) -> ImageRecords:
    """Return image files as records.

    Args:
        root: Folder of the images.
        names: Paths below `root`.
        labels: Label of each image.
        keys: See `ImageRecords`.

    Returns:
        The records.

    Raises:
        DataError: Files are missing. The message names them.
    """
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise DataError(
            f"{root}: {pluralize(len(missing), 'listed image')} missing:{bullets(missing)}\n"
            "extract or download it again"
        )
    paths = tuple(str(PurePosixPath(name)) for name in names)
    return ImageRecords(paths, np.asarray(labels), lambda i: (root / names[i]).read_bytes(), tuple(keys))


def records_from_arrays(
    prefix: str, digits: int, labels: NDArray[Any], read_pixels: Callable[[int], NDArray[np.uint8]]
) -> ImageRecords:
    """Return images that are published as one array. They are stored as PNG, and their keys are their indices.

    Args:
        prefix: Start of each file name, such as "train" of "train_00007.png".
        digits: Minimum number of digits in each file name.
        labels: Integers (n,).
        read_pixels: Function from index to uint8 (height, width) or (height, width, 3).

    Returns:
        The records.
    """

    def encoded(i: int) -> bytes:
        return encode_png(Image.fromarray(np.ascontiguousarray(read_pixels(i))))

    names = tuple(f"{prefix}_{i:0{digits}d}.png" for i in range(len(labels)))
    return ImageRecords(names, labels, encoded, tuple(map(str, range(len(labels)))))
