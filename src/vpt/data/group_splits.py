"""Stratified splits that keep groups of images whole, such as those of one patient."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def split_groups(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    ranked: Sequence[int],
    sizes: Mapping[str, NDArray[np.int64]],
) -> dict[str, NDArray[np.int64]]:
    """Assign whole groups to new splits, so that each comes as near to its size in each class as it can.

    Groups are taken in the order of their first images, each for a split that it brings nearer to its sizes. Then a
    split without a class takes the group with it that fits best. A class stays in as many of the groups that are left
    as there are splits to follow, with train.

    Args:
        labels: Class of each image (n,).
        groups: Group of each image (n,).
        ranked: Indices of the images in the order of the seed.
        sizes: Name of each new split to its number of images of each class (classes,).

    Returns:
        Name of each split, with "train", to the indices of its images, ascending.
    """
    _, members = np.unique(groups, return_inverse=True)
    num_classes = len(next(iter(sizes.values())))
    counts = np.zeros((int(members.max(initial=-1)) + 1, num_classes), np.int64)
    np.add.at(counts, (members, labels), 1)
    order = list(dict.fromkeys(members[list(ranked)].tolist()))
    found: dict[str, NDArray[np.int64]] = {}
    for position, (name, size) in enumerate(sizes.items()):
        taken = _choose_groups(counts, order, size, to_follow=len(sizes) - position)
        order = [group for group in order if group not in taken]
        found[name] = np.flatnonzero(np.isin(members, list(taken)))
    return {**found, "train": np.flatnonzero(np.isin(members, order))}


def _choose_groups(counts: NDArray[np.int64], order: list[int], size: NDArray[np.int64], to_follow: int) -> set[int]:
    """Return the groups of one split: of `order`, with `counts` images of each class."""
    needed, left, taken = size.copy(), (counts[order] > 0).sum(0), set[int]()

    def is_free(group: int) -> bool:
        return group not in taken and bool((left[counts[group] > 0] > to_follow).all())

    def distance(group: int) -> int:
        return int(np.abs(needed - counts[group]).sum())

    def take(group: int) -> None:
        nonlocal needed, left
        needed, left = needed - counts[group], left - (counts[group] > 0)
        taken.add(group)

    for group in order:
        if is_free(group) and distance(group) < np.abs(needed).sum():
            take(group)
    for label in np.flatnonzero(size):
        lacks = needed[label] == size[label]
        free = [group for group in order if counts[group, label] and is_free(group)] if lacks else []
        if free:
            take(min(free, key=distance))
    return taken
