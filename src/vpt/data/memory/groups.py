"""Groups of images in memory, such as patients, which splits, folds and intervals keep whole."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.core.text import comma_list, pluralize
from vpt.data.memory.missing_values import is_missing
from vpt.errors import DataError


def read_groups(groups: Any) -> tuple[str, ...]:
    """Return groups as texts.

    Args:
        groups: A text or an integer for each image, also an integer that is written as a float, as pandas writes those
            beside missing ones; None, NaN, `pandas.NA` or "" for an image on its own.

    Returns:
        The texts, "" for an image on its own.

    Raises:
        DataError: A group is something else.
    """
    if isinstance(groups, str) or not isinstance(groups, Iterable):
        raise DataError(f"groups are {groups!r}; give one text or integer for each image, None for one on its own")
    values = [group.item() if hasattr(group, "item") else group for group in groups]
    values = ["" if is_missing(value) else value for value in values]
    values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    for value in values:
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise DataError(f"a group is {value!r}; groups are texts or integers, such as the patient of an image")
    return tuple(map(str, values))


def number_groups(
    groups: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]
) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...]]:
    """Number the groups of the images of several splits.

    Args:
        groups: Name of a split to its groups, or to () without groups.
        sizes: Name of a split to its number of images.

    Returns:
        Name of a split to the number of the group of each image, the same in all splits; empty if no image has a group.
        And notes on groups with images in two splits.
    """
    if not any(group for found in groups.values() for group in found):
        return {}, ()
    known: dict[Any, int] = {}
    numbers, notes, seen = dict[str, NDArray[np.int64]](), list[str](), dict[str, set[str]]()
    for name, size in sizes.items():
        texts = groups[name] or ("",) * size
        keys = [text or (name, index) for index, text in enumerate(texts)]
        numbers[name] = np.array([known.setdefault(key, len(known)) for key in keys], np.int64)
        for other, earlier in seen.items():
            if shared := sorted(earlier & set(texts) - {""}):
                notes.append(
                    f"{pluralize(len(shared), 'group')} with images both in {other} and in {name}, so the {name} "
                    f"scores may be too high: {comma_list(shared)}"
                )
        seen[name] = set(texts)
    return numbers, tuple(notes)
