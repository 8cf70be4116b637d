"""Folds of cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from vpt.data.dataset import Split
from vpt.data.folds import assign_folds
from vpt.errors import DataError, SpecError

CLASSES = ("a", "b", "c")


def images(labels: np.ndarray, groups: np.ndarray | None = None) -> Split:
    return Split(tuple(f"{i}.png" for i in range(len(labels))), labels, groups=groups)


def test_folds_equal_those_of_scikit_learn() -> None:
    labels = np.random.default_rng(0).integers(3, size=50)
    found = assign_folds(images(labels), CLASSES, 4, seed=3)
    splitter = StratifiedKFold(4, shuffle=True, random_state=3)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels)):
        assert np.flatnonzero(found == fold).tolist() == held_out.tolist()
    counts = np.array([np.bincount(labels[found == fold], minlength=3) for fold in range(4)])
    assert (np.ptp(counts, axis=0) <= 1).all()


def test_folds_keep_groups_whole() -> None:
    groups = np.repeat(np.arange(20), 3)
    found = assign_folds(images(groups % 3, groups), CLASSES, 3, seed=0)
    assert all(len(set(found[groups == group])) == 1 for group in range(20))
    assert np.bincount(found).min() >= 12


def test_folds_of_too_few_images_are_refused() -> None:
    labels = np.array([0] * 9 + [1] * 3)
    with pytest.raises(DataError, match=r"fewer images than the 5 folds:\n  'b' \(3 images\)"):
        assign_folds(images(labels), CLASSES, 5, seed=0)
    with pytest.raises(SpecError, match="folds is 1"):
        assign_folds(images(labels), CLASSES, 1, seed=0)
