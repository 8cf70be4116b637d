"""Stratified splits and subsets of a dataset, determined by seed and image name.

The images of each class are ordered by the SHA-256 of seed and name. A split is therefore the same on every machine
and with every version of NumPy, does not depend on the order of files on disk, and hardly changes with a new image.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vpt.core.text import bullets, describe_counts, pluralize
from vpt.data.dataset import Dataset, Split
from vpt.data.group_splits import split_groups
from vpt.errors import DataError, SpecError


def fill_missing_splits(
    dataset: Dataset, *, seed: int = 0, val_fraction: float = 0.2, test_fraction: float = 0.2
) -> Dataset:
    """Return the dataset with empty val and test splits filled from train. Other splits are unchanged.

    Args:
        dataset: The dataset.
        seed: Seed of the split. Default: 0.
        val_fraction: Fraction of each class of train to move to val; 0 for none. Default: 0.2.
        test_fraction: Fraction of each class of train to move to test; 0 for none. Default: 0.2.

    Returns:
        The dataset with new splits.

    Raises:
        SpecError: A fraction is out of range, or nothing is left to train on.
    """
    wanted = {"test": test_fraction, "val": val_fraction}
    for split_name, fraction in wanted.items():
        if not 0 <= fraction < 1:
            raise SpecError(f"{split_name}_fraction is {fraction}; it must be at least 0 and below 1")
    missing = {name: fraction for name, fraction in wanted.items() if fraction and not len(dataset.splits[name])}
    if not missing:
        return dataset
    if sum(missing.values()) >= 1:
        raise SpecError(f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to train on")
    splits = dataset.splits | stratified_split(dataset.train, dataset.classes, missing, seed)
    description = ", ".join(f"{split_name} {fraction:.0%}" for split_name, fraction in missing.items())
    whole = "" if dataset.train.groups is None else ", groups kept whole"
    source = f"{dataset.source}; split from train by class with seed {seed}{whole}: {description}"
    return replace(dataset, train=splits["train"], val=splits["val"], test=splits["test"], source=source)


def stratified_split(
    split: Split, classes: tuple[str, ...], fractions: Mapping[str, float], seed: int
) -> dict[str, Split]:
    """Split the images of each class into new splits and train.

    Groups of images are kept whole. Earlier entries of `fractions` take their images first, so that changing a later
    one does not affect them.

    Args:
        split: The images.
        classes: Class names.
        fractions: Name of each new split to its fraction of the images of each class.
        seed: Seed of the split.

    Returns:
        The new splits and "train" by name, each in the order of `split`. Each has at least one image of each class; of
        groups with several classes, this is certain for train alone.

    Raises:
        DataError: A class has too few images.
    """
    counts, unit = split.group_counts(len(classes)), "image" if split.groups is None else "group"
    min_images = 1 + len(fractions)
    too_small = {classes[k]: int(counts[k]) for k in np.flatnonzero((counts > 0) & (counts < min_images))}
    if too_small:
        options = " and ".join(f"{split_name}_fraction=0" for split_name in sorted(fractions, reverse=True))
        raise DataError(
            f"{pluralize(len(too_small), 'class')} with too few {unit}s for train, {' and '.join(fractions)} "
            f"(at least {min_images}):{bullets(describe_counts(too_small, unit))}\n"
            f"add {unit}s, remove the class, add your own {' and '.join(fractions)} images, or set {options}"
        )
    if split.groups is not None:
        groups = _split_groups(split, len(classes), fractions, seed)
        return {split_name: split.select(indices) for split_name, indices in groups.items()}
    selected: dict[str, list[int]] = {split_name: [] for split_name in (*fractions, "train")}
    for members in _ordered_by_class(split, len(classes), seed):
        for split_name, num_images in _images_per_split(len(members), fractions).items():
            selected[split_name] += members[:num_images]
            members = members[num_images:]
        selected["train"] += members
    return {split_name: split.select(_sorted(indices)) for split_name, indices in selected.items()}


def stratified_subset(
    split: Split, classes: tuple[str, ...], fraction: float, seed: int, limit: int | None = None
) -> Split:
    """Return a part of the images of each class, in the order of the split (paper, section 4.2: data scale).

    The number of images is rounded half up, and at least one image of each class is kept. For the same seed, a smaller
    subset is contained in a larger one.

    Args:
        split: The split.
        classes: Class names.
        fraction: Fraction of the images, above 0 and at most 1.
        seed: Seed of the selection.
        limit: Largest number of images of a class. Default: none.

    Returns:
        The subset.

    Raises:
        SpecError: The fraction or the limit is out of range.
    """
    if not 0 < fraction <= 1:
        raise SpecError(f"train_fraction is {fraction}; it must be above 0 and at most 1 (all of train)")
    if limit is not None and limit < 1:
        raise SpecError(f"images_per_class is {limit}; it must be at least 1")
    if fraction == 1 and limit is None:
        return split
    selected: list[int] = []
    for members in _ordered_by_class(split, len(classes), seed):
        selected += members[: max(1, int(len(members) * fraction + 0.5))][:limit]
    return split.select(_sorted(selected))


def _ordered_by_class(split: Split, num_classes: int, seed: int) -> Iterator[list[int]]:
    """Iterate over classes. Return the indices of the images of each, by the SHA-256 of seed and name."""
    for label in range(num_classes):
        yield sorted(np.flatnonzero(split.strata == label).tolist(), key=partial(_rank, split, seed))


def _rank(split: Split, seed: int, index: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{split.names[index]}".encode("utf-8", "surrogateescape")).digest()


def _split_groups(
    split: Split, num_classes: int, fractions: Mapping[str, float], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Return the indices of each split, with groups kept whole."""
    assert split.groups is not None
    counts = [_images_per_split(int(count), fractions) for count in np.bincount(split.strata, minlength=num_classes)]
    sizes = {name: np.array([of_class.get(name, 0) for of_class in counts], dtype=np.int64) for name in fractions}
    ranked = sorted(range(len(split)), key=partial(_rank, split, seed))
    return split_groups(split.strata, split.groups, ranked, sizes)


def _sorted(indices: list[int]) -> NDArray[np.int64]:
    return np.array(sorted(indices), dtype=np.int64)


def _images_per_split(count: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Return the number of images of one class for each split: rounded half up, at least 1, leaving one for train."""
    if not count:
        return {}
    sizes = {split_name: max(1, int(count * fraction + 0.5)) for split_name, fraction in fractions.items()}
    while sum(sizes.values()) >= count:
        sizes[max(sizes, key=lambda split_name: sizes[split_name])] -= 1
    return sizes
