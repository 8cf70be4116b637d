"""Kinds of labels, which the array of labels shows by its type and shape."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vpt.errors import DataError

KindName = Literal["single_label", "multi_label", "regression"]


def kind_of_labels(labels: NDArray[Any]) -> KindName:
    """Return the kind of labels.

    Args:
        labels: Labels of images.

    Returns:
        "single_label" for int64 (n,), the class of each image; "multi_label" for float32 (n, classes) of 0 and 1;
        "regression" for float64 (n,), a number for each image.
    """
    if labels.dtype.kind != "f":
        return "single_label"
    return "multi_label" if labels.ndim == 2 else "regression"


def kind_of_columns(parts: Iterable[NDArray[Any]]) -> KindName:
    """Return the kind of labels in several columns, one for each class.

    Args:
        parts: The labels (n, classes) of each table or split.

    Returns:
        "single_label" if all are 0 or 1 and exactly one is 1 for each image, else "multi_label".
    """
    are_one_hot = all(np.isin(part, (0, 1)).all() and (part.sum(axis=1) == 1).all() for part in parts)
    return "single_label" if are_one_hot else "multi_label"


def check_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Check labels, and convert them to the type of their kind.

    Args:
        labels: Integers (n,), 0 and 1 of any type (n, classes), or floats (n,).

    Returns:
        Labels as `kind_of_labels` describes them.

    Raises:
        DataError: They are of no kind.
    """
    if not labels.size and labels.ndim == 1:
        return labels.astype(np.int64)
    if labels.dtype.kind not in "iuf":
        raise DataError(f"labels are {labels.dtype}; give integers, starting with 0 for the first class, or floats")
    if labels.ndim == 2:
        if not np.isin(labels, (0, 1)).all():
            wrong = labels[~np.isin(labels, (0, 1))][0]
            raise DataError(
                f"labels of shape {labels.shape} contain {wrong:g}; several labels of an image are 0 or 1 for each "
                "class; for a class or a number, give one label per image"
            )
        return labels.astype(np.float32)
    if labels.dtype.kind != "f":
        return labels.astype(np.int64)
    if not np.isfinite(labels).all():
        raise DataError(f"a label is {labels[~np.isfinite(labels)][0]}; numbers to predict are finite")
    return labels.astype(np.float64)


def check_classes_of_labels(splits: Mapping[str, NDArray[Any]], classes: Sequence[str]) -> None:
    """Check that the labels of all splits are of one kind, and that each has its class.

    Args:
        splits: Name of a split to its labels.
        classes: Names of the classes, or the one name of a number.

    Raises:
        DataError: They are not.
    """
    kinds = {name: kind_of_labels(labels) for name, labels in splits.items() if len(labels)}
    if len(set(kinds.values())) > 1:
        raise DataError(
            f"the labels are {', '.join(f'{kind} in {name}' for name, kind in kinds.items())}; give one kind"
        )
    for name, kind in kinds.items():
        labels, named = splits[name], len(classes)
        if kind == "single_label":
            invalid = (labels < 0) | (labels >= named)
            if invalid.any():
                raise DataError(
                    f"{name} contains the label {labels[invalid][0]}, but with {named} classes labels are 0 to "
                    f"{named - 1}; correct the labels or name all classes"
                )
        elif named != (labels.shape[1] if kind == "multi_label" else 1):
            shape = tuple(labels.shape)
            raise DataError(
                f"{name} has labels of shape {shape} and {named} names of classes; give one name for each column, and "
                "one for a number"
            )


def count_labels(labels: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """Return the number of images of each class.

    Args:
        labels: Labels of images.
        num_classes: Number of classes.

    Returns:
        Counts, int64 (num_classes,); of numbers to predict, the count of all images.
    """
    kind = kind_of_labels(labels)
    if kind == "regression":
        return np.full(num_classes, len(labels), np.int64)
    return np.asarray(labels.sum(0) if kind == "multi_label" else np.bincount(labels, minlength=num_classes), np.int64)
