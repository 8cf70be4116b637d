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

from vpt.core.text import counted, lines, number
from vpt.data.dataset import Dataset, Split
from vpt.errors import DataError, SpecError


def complete(dataset: Dataset, *, seed: int = 0, val_fraction: float = 0.2, test_fraction: float = 0.2) -> Dataset:
    """The dataset with an empty val or test cut out of its train; a part that is there stays as it is.

    val_fraction, test_fraction: share of the images now in train, for each class; 0 leaves the part empty.
    Raises SpecError for fractions that leave nothing to train on, DataError for a class too small to be cut.
    """
    wanted = {"test": test_fraction, "val": val_fraction}
    for part, fraction in wanted.items():
        if not 0 <= fraction < 1:
            raise SpecError(f"{part}_fraction is {fraction}; it must be at least 0 and below 1")
    missing = {part: wanted[part] for part in wanted if wanted[part] and not len(dataset.splits[part])}
    if not missing:
        return dataset
    if sum(missing.values()) >= 1:
        raise SpecError(f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to train on")
    parts = cut(dataset.train, dataset.classes, missing, seed)
    how = ", ".join(f"{part} {fraction:.0%}" for part, fraction in missing.items())
    return replace(
        dataset,
        train=parts["train"],
        val=parts.get("val", dataset.val),
        test=parts.get("test", dataset.test),
        source=f"{dataset.source}; cut from train by class with seed {seed}: {how}",
    )


def cut(split: Split, classes: tuple[str, ...], fractions: Mapping[str, float], seed: int) -> dict[str, Split]:
    """Part name -> Split for each of `fractions`, and "train" for the rest; each keeps the order of `split`.

    Every class gives each part at least one image and keeps at least one for train; else DataError.
    The first fraction is served first, so changing the second leaves its images alone.
    """
    counts = split.counts(len(classes))
    least = 1 + len(fractions)
    small = {classes[k]: int(counts[k]) for k in np.flatnonzero((counts > 0) & (counts < least))}
    if small:
        options = " and ".join(f"{part}_fraction=0" for part in sorted(fractions, reverse=True))
        raise DataError(
            f"{number(len(small), 'class')} with too few images to give {' and '.join(fractions)} one each "
            f"and keep one to train on (at least {least}):{lines(counted(small))}\n"
            f"add images, remove the class, bring your own {' and '.join(fractions)} images, or set {options}"
        )
    taken: dict[str, list[int]] = {part: [] for part in (*fractions, "train")}
    for label, count in enumerate(counts):
        members = sorted(np.flatnonzero(split.labels == label).tolist(), key=lambda i: _rank(split.names[i], seed))
        for part, share in _shares(int(count), fractions).items():
            taken[part] += members[:share]
            members = members[share:]
        taken["train"] += members
    return {part: split.pick(np.array(sorted(indices), dtype=np.int64)) for part, indices in taken.items()}


def subset(split: Split, classes: tuple[str, ...], fraction: float, seed: int) -> Split:
    """This fraction of the images of each class, in the order of `split` (paper, section 4.2: data scale).

    Rounded half up, and at least one image of each class that has any. For one seed, the images of a smaller fraction
    are among those of a larger. Raises SpecError for a fraction that is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise SpecError(f"train_fraction is {fraction}; it must be above 0 and at most 1, which is all of train")
    if fraction == 1:
        return split
    taken: list[int] = []
    for label in range(len(classes)):
        members = sorted(np.flatnonzero(split.labels == label).tolist(), key=lambda i: _rank(split.names[i], seed))
        taken += members[: max(1, int(len(members) * fraction + 0.5))]
    return split.pick(np.array(sorted(taken), dtype=np.int64))


def _shares(count: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Images of one class for each part: rounded half up, never below 1, one image left over."""
    if not count:
        return {}
    shares = {part: max(1, int(count * fraction + 0.5)) for part, fraction in fractions.items()}
    while sum(shares.values()) >= count:
        shares[max(shares, key=lambda part: shares[part])] -= 1
    return shares


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
