"""What every reader returns: images that are not decoded yet, their labels, and the splits they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpt.data.image_inputs import require_uint8
from vpt.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a dataset: `images[i]` is of class `labels[i]` and is called `names[i]` in messages.

    images: paths of image files, or a uint8 array (n, height, width, 3), red, green, blue.
    labels: int64 array (n,), each an index into `Dataset.classes`.
    names: n texts; left out, the paths or the positions. A seeded cut depends on them, not on the order.

    Raises DataError when the lengths, the shape or the type do not fit together.
    """

    images: tuple[Path, ...] | NDArray[np.uint8] = ()
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.size and labels.dtype.kind not in "iu":
            raise DataError(f"labels are {labels.dtype}; give whole numbers, 0 for the first class")
        object.__setattr__(self, "labels", labels.astype(np.int64))
        if isinstance(self.images, np.ndarray):
            require_uint8(self.images, "NHWC")
        if not self.names:
            has_paths = not isinstance(self.images, np.ndarray)
            names = (str(image) if has_paths else f"image {i}" for i, image in enumerate(self.images))
            object.__setattr__(self, "names", tuple(names))
        lengths = (len(self.images), len(self.names))
        if self.labels.ndim != 1 or lengths != (len(self.labels),) * 2:
            raise DataError(
                f"{lengths[0]} images, {lengths[1]} names and labels of shape {self.labels.shape} do not "
                "match; give one label and one name per image"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: NDArray[np.int64]) -> Split:
        """The images at these positions, in this order."""
        if isinstance(self.images, np.ndarray):
            images: tuple[Path, ...] | NDArray[np.uint8] = self.images[indices]
        else:
            images = tuple(self.images[i] for i in indices)
        return Split(images, self.labels[indices], tuple(self.names[i] for i in indices))

    def concat(self, other: Split) -> Split:
        """This split followed by the other; both hold paths, or both hold arrays of one size."""
        if not len(self) or not len(other):
            return self if len(self) else other
        labels, names = np.concatenate([self.labels, other.labels]), self.names + other.names
        first, second = self.images, other.images
        if isinstance(first, tuple) and isinstance(second, tuple):
            return Split(first + second, labels, names)
        if not isinstance(first, np.ndarray) or not isinstance(second, np.ndarray):
            raise DataError("one split holds paths, the other an array; give both in the same form")
        if first.shape[1:] != second.shape[1:]:
            raise DataError(f"images of {first.shape[1:]} and {second.shape[1:]} cannot be joined; make them one size")
        return Split(np.concatenate([first, second]), labels, names)

    def class_counts(self, num_classes: int) -> NDArray[np.int64]:
        """Images of each class: int64 (num_classes,)."""
        return np.bincount(self.labels, minlength=num_classes).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification task.

    name: a short name for tables and files.
    classes: name of each class; label k is `classes[k]`.
    train, val, test: the splits; val and test may be empty.
    source: where the images come from and how they were split, for a person to read.
    notes: what a user should know but need not repair, one sentence each.
    ignored: files and folders that lie in the source and were not used.

    Raises DataError when a label has no class.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    source: str = ""
    notes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split_name, split in self.splits.items():
            invalid = (split.labels < 0) | (split.labels >= len(self.classes))
            if invalid.any():
                raise DataError(
                    f"{split_name} holds the label {split.labels[invalid][0]}, but with {len(self.classes)} classes "
                    f"labels run from 0 to {len(self.classes) - 1}; correct the labels or name all classes"
                )

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name: train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def trainval(self) -> Split:
        """train and val together: what the final model is trained on once val has chosen the settings."""
        return self.train.concat(self.val)
