"""Labels in memory: names of classes, integers, 0 and 1 for each class, or numbers to predict."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.data.label_kinds import KindName
from vpt.data.memory.missing_values import is_missing
from vpt.errors import DataError

_MAX_CLASSES = 1_000_000


def read_labels(
    labels: Iterable[Any], split: str, label_kind: KindName | None = None
) -> tuple[str | int, ...] | NDArray[np.float64]:
    """Return integers and names one by one, and several labels of an image, or numbers to predict, as an array.

    Args:
        labels: A label for each image. A column (n, 1) is one label for each image, except for "multi_label", and
            for 0.0 and 1.0, the targets of one class of several labels.
        split: Name of the split, for messages.
        label_kind: "regression" reads integers as numbers, too. Default: by the labels.

    Returns:
        The labels.

    Raises:
        DataError: An image has no label, or labels are of no kind.
    """
    values = tuple(label.tolist() if hasattr(label, "tolist") else label for label in labels)
    are_lists = all(isinstance(label, list | tuple) and len(label) == 1 for label in values)
    are_targets = are_lists and all(isinstance(label[0], float) and label[0] in (0, 1) for label in values)
    if are_lists and label_kind != "multi_label" and (label_kind is not None or not are_targets):
        values = tuple(label[0] for label in values)
    values = tuple(int(label) if isinstance(label, bool) else label for label in values)
    for index, label in enumerate(values):
        if is_missing(label):
            raise DataError(f"image {index} of {split} has no label, it is {label}; leave the image out, or give one")
    if label_kind == "regression":
        try:
            return np.array(list(map(float, values)), np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"the labels are no numbers ({error}); give one number for each image") from None
    if any(isinstance(label, float | list | tuple) for label in values):
        try:
            return np.array(values, np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"labels are no numbers, or not as many for every image ({error}); give 0 or 1 for each class, or one "
                "number"
            ) from error
    if not all(isinstance(label, str) for label in values):
        for label in values:
            if not isinstance(label, int) or label < 0:
                raise DataError(f"a label is {label!r}; labels are integers from 0, names of classes, or floats")
    return values


def class_name(label: str | int, names: tuple[str, ...]) -> str:
    """Return the name of a class.

    Args:
        label: A name, or an integer.
        names: Names of integers.

    Returns:
        The name. An integer without a name stands for itself.
    """
    return label if isinstance(label, str) else names[label] if label < len(names) else str(label)


def known_classes(labels: Collection[str | int]) -> tuple[str, ...]:
    """Return the classes of labels without names.

    Args:
        labels: Integers or texts.

    Returns:
        All integers up to the largest, or the texts in order.

    Raises:
        DataError: An integer is too large to count classes.
    """
    numbers = [label for label in labels if isinstance(label, int)]
    if numbers and max(numbers) >= _MAX_CLASSES:
        raise DataError(
            f"a label is {max(numbers):.3g}, and labels without names count classes from 0; give names of classes, or "
            f"numbers below {_MAX_CLASSES:,}"
        )
    return tuple(map(str, range(max(numbers) + 1))) if numbers else tuple(sorted(set(map(str, labels))))
