"""Datasets of a Python program, such as arrays and torch datasets, converted to the `Dataset` of a folder."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vpt.core.text import comma_list, did_you_mean, pluralize
from vpt.data.dataset import Dataset, Split
from vpt.data.images.inputs import ImageInput, StoredImage
from vpt.data.label_kinds import KindName, kind_of_columns
from vpt.data.memory.digest import digest_splits
from vpt.data.memory.groups import number_groups, read_groups
from vpt.data.memory.labels import class_name, known_classes, read_labels
from vpt.errors import DataError

InMemoryData = (
    tuple[Any, Any]
    | tuple[Any, Any, Any]
    | Mapping[str, Any]
    | torch.utils.data.Dataset[Any]
    | Sequence[tuple[Any, Any]]
)

FORMS = (
    "give (images, labels) or (images, labels, groups), a torch Dataset of (image, label), or a Hugging Face Dataset "
    "with the columns image and label; a folder or a built-in task is given alone, without other data for its splits"
)
_SPLIT_NAMES = {"train": "train", "val": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class _LabeledImages:
    """Images with labels, which are names of classes, or integers; or an array of several labels or of a number.

    Args:
        images: The images.
        labels: One label per image.
        classes: Names of integer labels, or () if they have none.
        name: Name of the source, or "" if it has none.
        groups: Group of each image, such as its patient, "" for an image on its own; or () without groups.
    """

    images: tuple[ImageInput, ...] | NDArray[np.uint8]
    labels: tuple[Any, ...] | NDArray[np.float64]
    classes: tuple[str, ...] = ()
    name: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row(StoredImage):
    """The image of a row of a Hugging Face dataset, which lies on disk."""

    rows: Any
    index: int

    def read(self) -> Any:
        image = self.rows[self.index]["image"]
        return (image["bytes"] or image["path"]) if isinstance(image, Mapping) else image  # of Image(decode=False)


def dataset_from_memory(
    splits: Mapping[str, InMemoryData],
    classes: Iterable[str] | None = None,
    default_classes: Sequence[str] | None = None,
    label_kind: KindName | None = None,
) -> Dataset:
    """Convert data in memory to a dataset. Images are kept at their size; rows of Hugging Face are read when used.

    The items of a torch dataset are all read here, once, and kept in memory with the one draw of its random transforms:
    images are decoded in threads, which few torch datasets allow. Images that exceed the memory can be given as paths
    or as a Hugging Face dataset.

    Args:
        splits: Data of "train", "val" and "test"; a missing key stands for an empty split. Data are `(images, labels)`
            or `(images, labels, groups)` with images in any form that `vpt.data.images.inputs.read_image` takes; a
            torch `Dataset` of (image, label); or a Hugging Face `Dataset` with the columns image and label, and perhaps
            group. Labels are integers from 0, or class names; 0 and 1 for each class, which are single labels if each
            image has exactly one class, and whose names a data frame has; or floats, numbers to predict. Groups, texts
            or integers, stay whole in splits and folds.
        classes: Names of the classes, so that label k is `classes[k]`, or the name of the number. Default: those of the
            data (`classes` of a torch dataset, `ClassLabel` names of a Hugging Face dataset), else `default_classes`.
        default_classes: Names of the classes of data without names. Default: the labels themselves, or "value".
        label_kind: "regression" takes integers as numbers to predict, "multi_label" takes 0 and 1 for each class as
            several labels, even if each image has one. Default: by the labels.

    Returns:
        The dataset. Its text is a digest of all images and labels.

    Raises:
        DataError: The data have another form, lengths differ, a label has no class, or train has only one class.
    """
    own_names = _texts(classes)
    given = {name: _read(data, name, label_kind) for name, data in splits.items()}
    given, columns = (given, 0) if label_kind == "multi_label" else _join_columns(given)
    sizes = {name: len(split.labels) for name, split in given.items()}
    groups, notes = number_groups({name: split.groups for name, split in given.items()}, sizes)
    first = "train" if "train" in given else next(iter(given))
    shared = given[first].classes or default_classes or ()
    names = {name: tuple(own_names or split.classes or shared) for name, split in given.items()}
    if any(isinstance(split.labels, np.ndarray) for split in given.values()):
        ordered = {name: _order_columns(name, split, names[name], names[first]) for name, split in given.items()}
        return _numeric_dataset(ordered, names[first], groups, notes)
    known = names[first] or tuple(map(str, range(columns))) or known_classes(given[first].labels)
    if columns not in (0, len(known)):
        raise DataError(
            f"the labels have {columns} columns, and there are {pluralize(len(known), 'name')} of classes; give one "
            "name for each column"
        )
    if repeated := sorted(name for name, count in Counter(known).items() if count > 1):
        raise DataError(f"several classes have the name {comma_list(list(map(repr, repeated)))}; give each its own")
    label_of = {name: index for index, name in enumerate(known)}
    built = {}
    for name, split in given.items():
        named = [class_name(label, names[name]) for label in split.labels]
        unknown = sorted(set(named) - set(label_of))
        if unknown:
            raise DataError(
                f"{name} has the labels {comma_list(list(map(repr, unknown)))}, which are no classes "
                f"({comma_list(list(known))}); correct the labels, or name all classes with classes=[...]"
            )
        if name == "train" and len(set(named)) == 1:
            raise DataError(f"train has one class only, {named[0]!r}; a classifier needs images of two or more classes")
        labels = np.array([label_of[label] for label in named], dtype=np.int64)
        built[name] = Split(split.images, labels, groups=groups.get(name))
    return Dataset(
        name=next((split.name for split in given.values() if split.name), "images"),
        classes=known,
        train=built.get("train", Split()),
        val=built.get("val", Split()),
        test=built.get("test", Split()),
        source="data in memory",
        notes=notes,
        digest=digest_splits(built, known),
    )


def _join_columns(given: dict[str, _LabeledImages]) -> tuple[dict[str, _LabeledImages], int]:
    """Return columns of which one is 1 for each image as single labels, and their number; other labels as they are."""
    columns = {name: split.labels for name, split in given.items() if isinstance(split.labels, np.ndarray)}
    widths = {labels.shape[1] if labels.ndim == 2 else 1 for labels in columns.values()}
    width = widths.pop() if len(widths) == 1 and len(columns) == len(given) else 1
    if width == 1 or kind_of_columns(columns.values()) != "single_label":
        return given, 0
    single = {name: tuple(labels.argmax(axis=1).tolist()) for name, labels in columns.items()}
    return {name: replace(given[name], labels=labels) for name, labels in single.items()}, width


def _order_columns(
    name: str, split: _LabeledImages, names: tuple[str, ...], classes: tuple[str, ...]
) -> _LabeledImages:
    """Return a split whose columns of labels have the order of the classes."""
    labels = np.asarray(split.labels)
    if names == classes or labels.ndim != 2 or len(names) != labels.shape[1]:
        return split
    if set(names) != set(classes):
        raise DataError(
            f"{name} has labels of the classes {comma_list(list(names))}, and the first split those of "
            f"{comma_list(list(classes))}; give the same columns"
        )
    return replace(split, labels=np.ascontiguousarray(labels[:, [names.index(one) for one in classes]]))


def _numeric_dataset(
    given: Mapping[str, _LabeledImages],
    classes: tuple[str, ...],
    groups: Mapping[str, NDArray[np.int64]],
    notes: tuple[str, ...],
) -> Dataset:
    """Return the dataset of images with several labels, or with a number. Columns without names have their numbers."""
    built = {
        name: Split(split.images, np.asarray(split.labels), groups=groups.get(name)) for name, split in given.items()
    }
    labels = built.get("train", next(iter(built.values()))).labels
    if not classes:
        classes = tuple(map(str, range(labels.shape[1]))) if labels.ndim == 2 else ("value",)
    if "train" in built and (labels == labels[0]).all():
        raise DataError(f"all images of train have the label {labels[0]}, so there is nothing to learn")
    train, val, test = (built.get(name, Split()) for name in ("train", "val", "test"))
    name = next((split.name for split in given.values() if split.name), "images")
    return Dataset(name, classes, train, val, test, "data in memory", notes, digest=digest_splits(built, classes))


def split_mapping(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the splits of a mapping, such as a Hugging Face `DatasetDict`, under the names train, val and test.

    Args:
        data: Split name -> data.

    Returns:
        The splits.

    Raises:
        DataError: A name is no split.
    """
    for name in data:
        if name not in _SPLIT_NAMES:
            raise DataError(f"the data have a split {name!r}; {did_you_mean(str(name), _SPLIT_NAMES)}")
    return {_SPLIT_NAMES[name]: split for name, split in data.items()}


def _texts(names: Iterable[Any] | None) -> tuple[str, ...]:
    """Return names, also those of an array or a pandas index, which have no truth value."""
    return () if names is None else tuple(map(str, names))


def _read(data: Any, split: str, label_kind: KindName | None) -> _LabeledImages:
    """Read one split."""
    classes: Any = None
    name: Any = ""
    groups: Any = ()
    if isinstance(data, tuple) and len(data) in (2, 3):
        images, labels, *rest = data
        if labels is None:
            raise DataError(f"{split} has no labels: they are None; give one for each image")
        groups = rest[0] if rest else ()
        if hasattr(labels, "columns") and hasattr(labels, "to_numpy"):  # a data frame, which iterates over its columns
            classes, labels = labels.columns if labels.shape[1] > 1 else None, labels.to_numpy()
    elif hasattr(data, "column_names") and hasattr(data, "features"):  # a Hugging Face dataset
        if not {"image", "label"} <= set(data.column_names):
            raise DataError(
                f"the dataset has the columns {comma_list(list(data.column_names))}; rename those of the images and "
                "labels to image and label, with rename_column"
            )
        if not hasattr(data, "__len__"):
            raise DataError("the dataset is streamed, and has no length; load it without streaming=True")
        images, labels = [_Row(data, index) for index in range(len(data))], list(data["label"])
        groups = list(data["group"]) if "group" in data.column_names else ()
        classes = getattr(data.features["label"], "names", None)
        name = getattr(getattr(data, "info", None), "dataset_name", None)
    elif hasattr(data, "iloc"):
        raise DataError("a table of pandas says not which columns are images and labels; give (df.image, df.label)")
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, str | bytes | Mapping):
        items = [data[index] for index in range(len(data))]  # of a torch dataset, or a sequence of pairs
        data = _named(data)
        for index, item in enumerate(items):
            if not isinstance(item, tuple | list) or len(item) != 2:
                kind = type(item).__name__
                raise DataError(f"item {index} of the dataset is a value of type {kind}; each item is (image, label)")
        images, labels = [image for image, _ in items], [label for _, label in items]
        classes = getattr(data, "classes", None)
        name = "" if isinstance(data, list | tuple) else type(data).__name__
    else:
        raise DataError(f"{split} is a value of type {type(data).__name__}; {FORMS}")
    found = _LabeledImages(
        _as_sequence(images),
        read_labels(labels, split, label_kind),
        _texts(classes),
        str(name or ""),
        read_groups(groups),
    )
    num_images, num_labels = len(found.images), len(found.labels)
    if num_images != num_labels:
        given = f"{pluralize(num_images, 'image')} and {pluralize(num_labels, 'label')}"
        raise DataError(f"{split} has {given}; give one label per image")
    if not num_images:
        raise DataError(f"{split} has no image; {FORMS}")
    if len(found.groups) not in (0, num_images):
        given = f"{pluralize(num_images, 'image')} and {pluralize(len(found.groups), 'group')}"
        raise DataError(f"{split} has {given}; give one group per image, None for an image on its own")
    return found


def _named(data: Any) -> Any:
    """Return the dataset that names the classes of a part of it, or of several together."""
    if isinstance(data, torch.utils.data.Subset):
        return _named(data.dataset)
    if isinstance(data, torch.utils.data.ConcatDataset):
        parts = [_named(part) for part in data.datasets]
        if len({_texts(getattr(part, "classes", None)) for part in parts}) == 1:
            return parts[0]
    return data


def _as_sequence(images: Any) -> tuple[ImageInput, ...] | NDArray[np.uint8]:
    """Return images as an array for uint8 RGB, and one by one otherwise."""
    if isinstance(images, np.ndarray) and images.ndim == 1 and images.dtype.kind in "OU":  # paths, or images of sizes
        return tuple(images.tolist())
    if isinstance(images, np.ndarray | Tensor):
        if images.ndim not in (3, 4):
            raise DataError(f"images have the shape {tuple(images.shape)}; give (n, height, width, 3)")
        if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3:
            return images
        return tuple(images)
    if isinstance(images, str | Path | bytes | Image.Image) or not isinstance(images, Iterable):
        kind = type(images).__name__
        raise DataError(f"images are a value of type {kind}; give a list of images, or an array of them")
    return tuple(images)
