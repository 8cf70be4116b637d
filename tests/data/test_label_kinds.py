"""Labels by their kinds: the arrays of splits, and data in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers.brightness import draw
from vpt.data.dataset import Dataset, Split
from vpt.data.memory.datasets import dataset_from_memory
from vpt.data.overview import overview_of_classes
from vpt.data.splits import fill_missing_splits
from vpt.errors import DataError

PIXELS = draw(12)[0]
TAGS = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0]])[np.arange(12) % 4]


@pytest.mark.parametrize(
    ("labels", "kind", "dtype"),
    [
        (np.arange(12) % 3, "single_label", np.int64),
        (np.arange(12).astype(np.uint8) % 3, "single_label", np.int64),
        (TAGS, "multi_label", np.float32),
        (TAGS > 0, "multi_label", np.float32),
        (TAGS.astype(np.float64), "multi_label", np.float32),
        (TAGS.tolist(), "multi_label", np.float32),
        (torch.from_numpy(TAGS), "multi_label", np.float32),
        (np.linspace(0, 1, 12), "regression", np.float64),
        (np.linspace(0, 1, 12).tolist(), "regression", np.float64),
    ],
)
def test_labels_in_memory_have_the_kind_that_they_show(labels: Any, kind: str, dtype: Any) -> None:
    found = dataset_from_memory({"train": (PIXELS, labels)})
    assert found.label_kind == kind and found.train.labels.dtype == dtype
    assert found.classes == (("value",) if kind == "regression" else ("0", "1", "2"))
    np.testing.assert_allclose(found.train.labels, np.asarray(labels), atol=1e-6)


@pytest.mark.parametrize("convert", [np.asarray, np.ndarray.tolist, torch.from_numpy, lambda labels: labels > 0])
def test_columns_of_which_one_is_1_for_each_image_are_single_labels_as_in_a_table(convert: Any) -> None:
    labels = np.arange(12) % 3
    columns = convert(np.eye(4)[labels])
    found = dataset_from_memory({"train": (PIXELS, columns), "val": (PIXELS[:2], columns[:2])})
    assert found.label_kind == "single_label" and found.classes == ("0", "1", "2", "3")
    assert found.train.labels.tolist() == labels.tolist() and found.val.labels.tolist() == [0, 1]
    assert dataset_from_memory({"train": (PIXELS, columns)}, classes=[*"abcd"]).classes == (*"abcd",)
    with pytest.raises(DataError, match="the labels have 4 columns, and there are 3 names of classes"):
        dataset_from_memory({"train": (PIXELS, columns)}, classes=[*"abc"])
    several = dataset_from_memory({"train": (PIXELS, columns)}, label_kind="multi_label")
    assert several.label_kind == "multi_label" and several.train.labels.shape == (12, 4)


def test_columns_of_several_labels_in_one_split_are_several_in_all() -> None:
    found = dataset_from_memory({"train": (PIXELS, np.eye(3)[np.arange(12) % 3]), "val": (PIXELS, TAGS)})
    assert found.label_kind == "multi_label"


@pytest.mark.parametrize("labels", [[True] * 6 + [False] * 6, np.arange(12) < 6, torch.arange(12) < 6])
def test_booleans_are_the_classes_0_and_1(labels: Any) -> None:
    found = dataset_from_memory({"train": (PIXELS, labels)}, classes=["no", "yes"])
    assert found.classes == ("no", "yes") and found.train.labels.tolist() == [1] * 6 + [0] * 6


def test_labels_of_a_torch_dataset_are_stacked() -> None:
    pairs = [(pixels, torch.tensor([1.0, float(k % 2)])) for k, pixels in enumerate(PIXELS)]
    found = dataset_from_memory({"train": pairs}, classes=["animal", "wild"])
    assert found.label_kind == "multi_label" and found.classes == ("animal", "wild")
    assert found.train.class_counts(2).tolist() == [12, 6]


def test_integers_are_numbers_to_predict_if_asked() -> None:
    found = dataset_from_memory({"train": (PIXELS, np.arange(12))}, label_kind="regression")
    assert found.label_kind == "regression" and found.train.labels.tolist() == list(range(12))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((12, 2), 0.5), r"labels of shape \(12, 2\) contain 0.5; several labels of an image are 0 or 1"),
        ([[1, 0]] * 11 + [[1]], "labels are no numbers, or not as many for every image"),
        ([0.5] * 11 + ["cat"], "labels are no numbers"),
        ([0.5] * 11 + [float("inf")], "a label is inf; numbers to predict are finite"),
        ([0.5] * 11 + [float("nan")], "image 11 of train has no label, it is nan; leave the image out, or give one"),
        (["a", float("nan"), *["b"] * 10], "image 1 of train has no label, it is nan"),
        (np.array([np.nan, *[1.0] * 11]), "image 0 of train has no label, it is nan"),
        ([None] * 12, "image 0 of train has no label, it is None"),
        (np.zeros(12), "all images of train have the label 0.0, so there is nothing to learn"),
        (np.ones((12, 2)), r"all images of train have the label \[1. 1.\]"),
    ],
)
def test_labels_of_no_kind_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataset_from_memory({"train": (PIXELS, labels)})


@pytest.mark.parametrize("labels", [np.arange(12)[:, None] % 2, [[k % 2] for k in range(12)], torch.rand(12, 1)])
def test_column_of_labels_is_one_label_for_each_image(labels: Any) -> None:
    found = dataset_from_memory({"train": (PIXELS, labels)}, label_kind=None)
    assert found.train.labels.shape == (12,) and found.label_kind != "multi_label"
    numbers = dataset_from_memory({"test": (PIXELS, labels)}, ["age"], label_kind="regression")
    assert numbers.label_kind == "regression" and numbers.test.labels.shape == (12,)


@pytest.mark.parametrize("labels", [np.arange(12)[:, None] % 2, torch.eye(12)[:, :1]])
def test_column_of_0_and_1_is_several_labels_where_asked_or_of_floats(labels: Any) -> None:
    kind = None if isinstance(labels, torch.Tensor) else "multi_label"  # floats of 0 and 1 are targets of such labels
    several = dataset_from_memory({"train": (PIXELS, labels)}, label_kind=kind)
    assert several.label_kind == "multi_label" and several.train.labels.shape == (12, 1)


def test_column_of_names_is_one_class_for_each_image() -> None:
    names = np.array(["cat", "dog"] * 6, object)[:, None]
    assert dataset_from_memory({"train": (PIXELS, names)}).classes == ("cat", "dog")


def test_negative_integers_are_numbers_to_predict_if_asked() -> None:
    found = dataset_from_memory({"train": (PIXELS, np.arange(12) - 6)}, label_kind="regression")
    assert found.train.labels.tolist() == list(range(-6, 6))


def test_data_frame_of_labels_names_the_classes_by_its_columns() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TAGS, columns=["cat", "dog", "bird"])
    several = dataset_from_memory({"train": (PIXELS, frame)})
    assert several.label_kind == "multi_label" and several.classes == ("cat", "dog", "bird")
    assert np.array_equal(several.train.labels, TAGS)
    single = dataset_from_memory({"train": (PIXELS, pandas.DataFrame({"kind": ["x", "y"] * 6}))})
    assert single.label_kind == "single_label" and single.classes == ("x", "y")


def test_data_frames_of_labels_have_their_columns_in_one_order() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TAGS, columns=["cat", "dog", "bird"])
    found = dataset_from_memory({"train": (PIXELS, frame), "test": (PIXELS, frame[["bird", "cat", "dog"]])})
    assert np.array_equal(found.test.labels, TAGS)
    with pytest.raises(DataError, match="test has labels of the classes bird, cat, cow, and the first split those of"):
        renamed = frame[["bird", "cat", "dog"]].rename(columns={"dog": "cow"})
        dataset_from_memory({"train": (PIXELS, frame), "test": (PIXELS, renamed)})


@pytest.mark.parametrize("values", [[0, None, *[1] * 10], ["a", None, *["b"] * 10]])
def test_missing_label_of_pandas_is_named(values: list[Any]) -> None:
    pandas = pytest.importorskip("pandas")
    for kind in (None, "Int64" if values[0] == 0 else "string"):
        with pytest.raises(DataError, match=r"image 1 of train has no label, it is .*; leave the image out, or give"):
            dataset_from_memory({"train": (PIXELS, pandas.Series(values, dtype=kind))})


def test_splits_with_labels_of_two_kinds_are_refused() -> None:
    with pytest.raises(DataError, match="labels are multi_label in train, regression in val; give one kind"):
        Dataset("a", ("x",), Split(PIXELS, np.ones((12, 1))), Split(PIXELS, np.ones(12)), Split())
    with pytest.raises(DataError, match=r"train has labels of shape \(12, 2\) and 1 names of classes"):
        Dataset("a", ("x",), Split(PIXELS, np.ones((12, 2))), Split(), Split())


@pytest.mark.parametrize("labels", [np.linspace(0, 1, 12), TAGS])
def test_missing_splits_of_other_kinds_are_drawn_from_all_images(labels: Any) -> None:
    whole = dataset_from_memory({"train": (PIXELS, labels)})
    filled = fill_missing_splits(whole, seed=1, val_fraction=0.25, test_fraction=0.25)
    assert [len(split) for split in filled.splits.values()] == [6, 3, 3]
    together = sorted(np.concatenate([split.labels for split in filled.splits.values()]).tolist())
    assert together == sorted(whole.train.labels.tolist())


def test_overview_of_other_kinds_names_what_is_predicted() -> None:
    numbers = dataset_from_memory({"train": (PIXELS, np.linspace(0, 11, 12))}, classes=["age"])
    assert overview_of_classes(numbers).lines()[0] == (
        "images: regression of age (0 to 11, mean 5.5), 12 images (train 12)"
    )
    tags = dataset_from_memory({"train": (PIXELS, TAGS)})
    lines = overview_of_classes(tags).lines()
    assert lines[0] == "images: multi-label classification, 3 classes, 12 images (train 12)"
    assert lines[1] == "  0  train 3"
