"""Cutting val and test out of train, and the two classes that carry data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vpt.data.dataset import Dataset, Split
from vpt.data.splits import fill_missing_splits, stratified_split, stratified_subset
from vpt.errors import DataError, SpecError


def dataset(*counts: int) -> Dataset:
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.zeros((len(labels), 8, 8, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return Dataset("d", tuple("abcdefgh"[: len(counts)]), Split(images, labels), Split(), Split())


def test_stratified_split_with_seed_0_selects_known_images():
    splits = stratified_split(dataset(10, 10).train, ("a", "b"), {"test": 0.2, "val": 0.2}, seed=0)
    assert splits["test"].images[:, 0, 0, 0].tolist() == [1, 5, 12, 18]
    assert splits["val"].images[:, 0, 0, 0].tolist() == [2, 6, 15, 19]


def test_stratified_split_of_reordered_images_selects_the_same():
    split = dataset(20, 20).train
    splits = stratified_split(split, ("a", "b"), {"test": 0.2, "val": 0.2}, seed=0)
    reordered = stratified_split(split.select(np.arange(40)[::-1]), ("a", "b"), {"test": 0.2, "val": 0.2}, seed=0)
    assert all(set(splits[name].names) == set(reordered[name].names) for name in splits)
    assert stratified_split(split, ("a", "b"), {"test": 0.2, "val": 0.4}, seed=0)["test"].names == splits["test"].names
    assert stratified_split(split, ("a", "b"), {"test": 0.2, "val": 0.2}, seed=1)["test"].names != splits["test"].names


@pytest.mark.parametrize("val", [0.01, 0.2, 0.5, 0.6])
@pytest.mark.parametrize("test", [0.01, 0.3])
def test_fill_missing_splits_of_small_classes_keeps_each_class_in_each_split(val, test):
    whole = dataset(3, 4, 7, 50)
    filled = fill_missing_splits(whole, seed=5, val_fraction=val, test_fraction=test)
    counts = np.array([split.class_counts(4) for split in filled.splits.values()])
    assert counts.min() >= 1
    assert counts.sum(axis=0).tolist() == [3, 4, 7, 50]
    assert counts[1:, 3].tolist() == [int(50 * val + 0.5), int(50 * test + 0.5)]


def test_fill_missing_splits_of_too_few_images_is_refused():
    with pytest.raises(DataError) as caught:
        fill_missing_splits(dataset(2, 30, 1))
    text = str(caught.value)
    assert "'a' (2 images)\n  'c' (1 image)" in text and "at least 3" in text
    assert "set val_fraction=0 and test_fraction=0" in text
    assert len(fill_missing_splits(dataset(2, 30), val_fraction=0).test) == 7
    assert fill_missing_splits(dataset(1, 1), val_fraction=0, test_fraction=0).test.class_counts(2).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("val", "test", "message"),
    [
        (0.5, 0.5, "val_fraction 0.5 and test_fraction 0.5 leave nothing to train on"),
        (1.0, 0.0, "val_fraction is 1.0; it must be at least 0 and below 1"),
        (-0.1, 0.0, "val_fraction is -0.1; it must be"),
        (0.0, float("nan"), "test_fraction is nan; it must be"),
    ],
)
def test_fill_missing_splits_of_fractions_out_of_range_is_refused(val, test, message):
    with pytest.raises(SpecError, match=message):
        fill_missing_splits(dataset(8, 8), val_fraction=val, test_fraction=test)


def test_trainval_after_fill_missing_splits_restores_the_images():
    filled = fill_missing_splits(dataset(5, 5), test_fraction=0)
    assert sorted(filled.trainval().names) == sorted(dataset(5, 5).train.names)
    assert filled.trainval().images.shape == (10, 8, 8, 3)
    assert len(filled.test) == 0 and filled.test.class_counts(2).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (np.zeros((2, 8, 8, 3)), [0, 1], "float64"),
        (np.zeros((2, 3, 8, 8), np.uint8), [0, 1], "height, width, 3"),
        (np.zeros((2, 8, 8, 3), np.uint8), [0], "one label and one name per image"),
        (np.zeros((2, 8, 8, 3), np.uint8), ["0.5", "1"], "integers"),
        (np.zeros((2, 8, 8, 3), np.uint8), [0.5, np.nan], "a label is nan"),
        (np.zeros((2, 8, 8, 3), np.uint8), [[0, 2], [1, 0]], "contain 2"),
    ],
)
def test_split_of_invalid_arrays_is_refused(images, labels, reason):
    with pytest.raises(DataError, match=reason):
        Split(images, np.array(labels))


@pytest.mark.parametrize("label", [-1, 2])
def test_dataset_with_label_outside_classes_is_refused(label):
    split = Split(np.zeros((1, 8, 8, 3), np.uint8), np.array([label]))
    with pytest.raises(DataError, match="labels are 0 to 1"):
        Dataset("d", ("a", "b"), split, Split(), Split())


@pytest.mark.parametrize("seed", [0, 3])
def test_stratified_subset_of_growing_fractions_is_nested_and_keeps_each_class(seed):
    split = dataset(1, 4, 20, 0).train
    classes = ("a", "b", "c", "d")
    subsets = [stratified_subset(split, classes, fraction, seed) for fraction in (0.01, 0.1, 0.25, 0.5, 0.75, 1)]
    assert [subset.class_counts(4).tolist() for subset in subsets] == [
        [1, 1, 1, 0], [1, 1, 2, 0], [1, 1, 5, 0], [1, 2, 10, 0], [1, 3, 15, 0], [1, 4, 20, 0],
    ]  # fmt: skip
    for smaller, larger in pairwise(subsets):
        assert set(smaller.names) <= set(larger.names)
    reordered = stratified_subset(split.select(np.arange(25)[::-1]), classes, 0.5, seed)
    assert set(reordered.names) == set(subsets[3].names)
    assert subsets[3].names != stratified_subset(split, classes, 0.5, seed + 1).names
    assert subsets[3].images[:, 0, 0, 0].tolist() == sorted(subsets[3].images[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_stratified_subset_with_invalid_fraction_is_refused(fraction):
    with pytest.raises(SpecError, match="above 0 and at most 1"):
        stratified_subset(dataset(3).train, ("a",), fraction, 0)


def test_stratified_subset_with_a_limit_keeps_at_most_so_many_images_of_each_class():
    split = dataset(1, 4, 20, 0).train
    classes = ("a", "b", "c", "d")
    few, more, half = (stratified_subset(split, classes, *args) for args in ((1, 0, 3), (1, 0, 5), (0.5, 0, 8)))
    assert [subset.class_counts(4).tolist() for subset in (few, more, half)] == [
        [1, 3, 3, 0], [1, 4, 5, 0], [1, 2, 8, 0],
    ]  # fmt: skip
    assert set(few.names) < set(more.names)
    assert few.names != stratified_subset(split, classes, 1, 1, 3).names
    with pytest.raises(SpecError, match="images_per_class is 0"):
        stratified_subset(split, classes, 1, 0, 0)
