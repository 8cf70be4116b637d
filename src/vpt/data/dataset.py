"""Datasets as every reader returns them: images in any form, not decoded yet, labels, and splits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.data.images.file_paths import FilePaths
from vpt.data.images.inputs import ImageInput, require_uint8
from vpt.data.label_kinds import KindName, check_classes_of_labels, check_labels, count_labels, kind_of_labels
from vpt.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a dataset. `images[i]` has class `labels[i]` and is called `names[i]` in messages.

    Args:
        images: Images in any form that `vpt.data.images.inputs.read_image` takes, or a uint8 RGB array
            (n, height, width, 3). Default: none.
        labels: Integers (n,), indices into `Dataset.classes`; 0 and 1 (n, classes), several labels of an image; or
            floats (n,), numbers to predict. Stored as int64, float32 and float64.
        names: One text per image. Default: the paths, or "image 0" and so on. A seeded split depends on the names, not
            on the order of the images.
        groups: Number of the group of each image, int64 (n,), such as its patient. Splits and folds keep a group whole.
            Default: every image is on its own.

    Raises:
        DataError: The lengths, shapes or types do not match.
    """

    images: tuple[ImageInput, ...] | FilePaths | NDArray[np.uint8] = ()
    labels: NDArray[Any] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    names: tuple[str, ...] = ()
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Check and convert the fields."""
        labels = check_labels(np.asarray(self.labels))
        object.__setattr__(self, "labels", labels)
        if isinstance(self.images, np.ndarray):
            require_uint8(self.images, "NHWC")
        if not self.names:
            named = (str(x) if isinstance(x, str | Path) else f"image {i}" for i, x in enumerate(self.images))
            object.__setattr__(self, "names", tuple(named))
        num_images, num_names = len(self.images), len(self.names)
        if labels.ndim not in (1, 2) or not num_images == num_names == len(labels):
            raise DataError(
                f"{num_images} images, {num_names} names and labels of shape {labels.shape} do not match; give one "
                "label and one name per image"
            )
        if self.groups is not None and self.groups.shape != (num_images,):
            raise DataError(
                f"{num_images} images and groups of shape {self.groups.shape} do not match; give one group per image"
            )

    @classmethod
    def of_files(
        cls, root: Path, names: Sequence[str], labels: Sequence[int] | NDArray[Any], groups: Sequence[int] | None = None
    ) -> "Split":
        """Return the split of image files.

        Args:
            root: Folder of the images.
            names: Paths below `root`, or absolute ones.
            labels: Label of each image.
            groups: Number of the group of each image. Default: none.

        Returns:
            The split.
        """
        numbers = None if groups is None else np.array(groups, dtype=np.int64)
        return cls(
            FilePaths(root, tuple(names)),
            labels if isinstance(labels, np.ndarray) else np.array(labels, dtype=np.int64),
            tuple(names),
            numbers,
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those of the images that are files."""
        if isinstance(self.images, np.ndarray):
            return ()
        return tuple(image for image in self.images if isinstance(image, Path))

    def select(self, indices: NDArray[np.int64]) -> "Split":
        """Return the images at some indices.

        Args:
            indices: Indices of images, int64 (k,).

        Returns:
            A split with these images, in this order.
        """
        if isinstance(self.images, np.ndarray):
            images: tuple[ImageInput, ...] | FilePaths | NDArray[np.uint8] = self.images[indices]
        elif isinstance(self.images, FilePaths):
            images = FilePaths(self.images.root, tuple(self.images.names[i] for i in indices))
        else:
            images = tuple(self.images[i] for i in indices)
        groups = None if self.groups is None else self.groups[indices]
        return Split(images, self.labels[indices], tuple(self.names[i] for i in indices), groups)

    def concat(self, other: "Split") -> "Split":
        """Return this split followed by another one.

        Args:
            other: A split of the same form: paths, or arrays of the same image size.

        Returns:
            The combined split.

        Raises:
            DataError: The two splits have different forms or image sizes.
        """
        if not len(self) or not len(other):
            return self if len(self) else other
        first, second = self.images, other.images
        images: tuple[ImageInput, ...] | FilePaths | NDArray[np.uint8]
        if isinstance(first, FilePaths) and isinstance(second, FilePaths) and first.root == second.root:
            images = FilePaths(first.root, first.names + second.names)
        elif not isinstance(first, np.ndarray) and not isinstance(second, np.ndarray):
            images = (*first, *second)
        elif not isinstance(first, np.ndarray) or not isinstance(second, np.ndarray):
            raise DataError("one split holds single images, the other an array; give both in the same form")
        elif first.shape[1:] != second.shape[1:]:
            shapes = f"{first.shape[1:]} and {second.shape[1:]}"
            raise DataError(f"images of shapes {shapes} cannot be combined; give one size")
        else:
            images = np.concatenate([first, second])
        groups = None
        if self.groups is not None and other.groups is not None:
            groups = np.concatenate([self.groups, other.groups])
        return Split(images, np.concatenate([self.labels, other.labels]), self.names + other.names, groups)

    def class_counts(self, num_classes: int) -> NDArray[np.int64]:
        """Return the number of images of each class.

        Args:
            num_classes: Number of classes of the dataset.

        Returns:
            int64 (num_classes,).
        """
        return count_labels(self.labels, num_classes)

    @property
    def strata(self) -> NDArray[np.int64]:
        """Stratum of each image in a split, int64 (n,): its class; one for all where images have no single class."""
        return self.labels if kind_of_labels(self.labels) == "single_label" else np.zeros(len(self), np.int64)

    def group_counts(self, num_classes: int) -> NDArray[np.int64]:
        """Return the number of groups with an image of each class, or of images where there are no groups.

        Args:
            num_classes: Number of classes of the dataset.

        Returns:
            int64 (num_classes,).
        """
        if self.groups is None:
            return np.bincount(self.strata, minlength=num_classes).astype(np.int64)
        pairs = np.unique(np.stack([self.strata, self.groups]), axis=1)
        return np.bincount(pairs[0], minlength=num_classes).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset of labeled images.

    Args:
        name: A short name for tables and files.
        classes: Name of each class; label k is `classes[k]`. Of numbers to predict, the one name of the number.
        train: Training split.
        val: Validation split; it may be empty.
        test: Test split; it may be empty.
        source: Description of the origin of the images and of the split.
        notes: Messages for the user that require no action, one sentence each.
        ignored: Files and folders in the source that are not used.
        digest: SHA-256 of all images and labels of data in memory, else "".

    Raises:
        DataError: A label has no class.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    source: str = ""
    notes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    digest: str = ""

    def __str__(self) -> str:
        """Return the name, with the digest of data in memory."""
        return f"{self.name} (sha256 {self.digest[:16]})" if self.digest else self.name

    def __post_init__(self) -> None:
        """Check the labels."""
        check_classes_of_labels({name: split.labels for name, split in self.splits.items()}, self.classes)

    @property
    def label_kind(self) -> KindName:
        """The kind of the labels, see `kind_of_labels`."""
        return kind_of_labels(next((split.labels for split in self.splits.values() if len(split)), self.train.labels))

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name: train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def trainval(self) -> Split:
        """Return train and val together, for the final training with the selected settings.

        Returns:
            The combined split.
        """
        return self.train.concat(self.val)
