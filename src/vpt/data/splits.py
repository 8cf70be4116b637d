"""Cutting val and test out of train where a dataset comes without them, and taking a part of train: by class,
by seed, by name.

The images of a class are ordered by the SHA-256 of seed and name. So a cut is the same on every machine and
with every version of NumPy, does not depend on the order in which a disk lists files, and a
new image hardly moves it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from vpt.core.text import bullets, describe_counts, pluralize
from vpt.data.dataset import Dataset, Split
from vpt.errors import DataError, SpecError


def fill_missing_splits(
    dataset: Dataset, *, seed: int = 0, val_fraction: float = 0.2, test_fraction: float = 0.2
) -> Dataset:
    """The dataset with an empty val or test cut out of its train; a split that is there stays as it is.

    val_fraction, test_fraction: fraction of the images now in train, for each class; 0 leaves the split empty.
    Raises SpecError for fractions that leave nothing to train on, DataError for a class too small to be cut.
    """
    wanted = {"test": test_fraction, "val": val_fraction}
    for split_name, fraction in wanted.items():
        if not 0 <= fraction < 1:
            raise SpecError(f"{split_name}_fraction is {fraction}; it must be at least 0 and below 1")
    missing = {
        split_name: wanted[split_name]
        for split_name in wanted
        if wanted[split_name] and not len(dataset.splits[split_name])
    }
    if not missing:
        return dataset
    if sum(missing.values()) >= 1:
        raise SpecError(f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to train on")
    splits = stratified_split(dataset.train, dataset.classes, missing, seed)
    description = ", ".join(f"{split_name} {fraction:.0%}" for split_name, fraction in missing.items())
    return replace(
        dataset,
        train=splits["train"],
        val=splits.get("val", dataset.val),
        test=splits.get("test", dataset.test),
        source=f"{dataset.source}; cut from train by class with seed {seed}: {description}",
    )


def stratified_split(
    split: Split, classes: tuple[str, ...], fractions: Mapping[str, float], seed: int
) -> dict[str, Split]:
    """Split name -> Split for each of `fractions`, and "train" for the rest; each keeps the order of `split`.

    Every class gives each split at least one image and keeps at least one for train; else DataError.
    The first fraction is served first, so changing the second leaves its images alone.
    """
    counts = split.class_counts(len(classes))
    min_images = 1 + len(fractions)
    too_small = {classes[k]: int(counts[k]) for k in np.flatnonzero((counts > 0) & (counts < min_images))}
    if too_small:
        options = " and ".join(f"{split_name}_fraction=0" for split_name in sorted(fractions, reverse=True))
        raise DataError(
            f"{pluralize(len(too_small), 'class')} with too few images to give {' and '.join(fractions)} one each "
            f"and keep one to train on (at least {min_images}):{bullets(describe_counts(too_small))}\n"
            f"add images, remove the class, bring your own {' and '.join(fractions)} images, or set {options}"
        )
    selected: dict[str, list[int]] = {split_name: [] for split_name in (*fractions, "train")}
    for label, count in enumerate(counts):
        members = sorted(np.flatnonzero(split.labels == label).tolist(), key=lambda i: _hash_rank(split.names[i], seed))
        for split_name, num_images in _images_per_split(int(count), fractions).items():
            selected[split_name] += members[:num_images]
            members = members[num_images:]
        selected["train"] += members
    return {
        split_name: split.select(np.array(sorted(indices), dtype=np.int64)) for split_name, indices in selected.items()
    }


def stratified_subset(split: Split, classes: tuple[str, ...], fraction: float, seed: int) -> Split:
    """This fraction of the images of each class, in the order of `split` (paper, section 4.2: data scale).

    Rounded half up, and at least one image of each class that has any. For one seed, the images of a smaller fraction
    are among those of a larger. Raises SpecError for a fraction that is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise SpecError(f"train_fraction is {fraction}; it must be above 0 and at most 1, which is all of train")
    if fraction == 1:
        return split
    selected: list[int] = []
    for label in range(len(classes)):
        members = sorted(np.flatnonzero(split.labels == label).tolist(), key=lambda i: _hash_rank(split.names[i], seed))
        selected += members[: max(1, int(len(members) * fraction + 0.5))]
    return split.select(np.array(sorted(selected), dtype=np.int64))


def _images_per_split(count: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Images of one class for each split: rounded half up, never below 1, one image left over."""
    if not count:
        return {}
    sizes = {split_name: max(1, int(count * fraction + 0.5)) for split_name, fraction in fractions.items()}
    while sum(sizes.values()) >= count:
        sizes[max(sizes, key=lambda split_name: sizes[split_name])] -= 1
    return sizes


def _hash_rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
