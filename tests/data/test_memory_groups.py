"""Groups of data in memory: kept whole in splits, folds, left-out predictions and intervals, as those of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold

import vpt
from helpers.brightness import ColumnDataset, draw, encoded
from vpt.data.folds import assign_folds
from vpt.data.memory.datasets import dataset_from_memory
from vpt.data.memory.groups import number_groups
from vpt.data.splits import fill_missing_splits

PIXELS, LABELS = draw(40)
GROUPS = [f"patient {k // 4}" for k in range(40)]


def test_groups_in_memory_stay_whole_in_missing_splits_and_folds() -> None:
    dataset = dataset_from_memory({"train": (PIXELS, LABELS, GROUPS)})
    assert dataset.train.groups is not None
    filled = fill_missing_splits(dataset)
    groups = [set(split.groups.tolist()) for split in filled.splits.values() if split.groups is not None]
    assert [len(split) for split in filled.splits.values()] == [24, 8, 8]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    folds = assign_folds(dataset.train, dataset.classes, 5, 0)
    for train, rows in GroupKFold(5).split(LABELS, LABELS, GROUPS):  # as in scikit-learn, none is in two folds
        assert not set(np.array(GROUPS)[train]) & set(np.array(GROUPS)[rows])
    assert all(len(set(folds[dataset.train.groups == group])) == 1 for group in range(10))


@pytest.mark.parametrize(
    "groups",
    [GROUPS, np.arange(40) // 4, tuple(GROUPS), np.array(GROUPS), [np.int32(k // 4) for k in range(40)]],
)
def test_groups_of_any_type_are_numbered(groups: Any) -> None:
    dataset = dataset_from_memory({"train": (PIXELS, LABELS, groups)})
    assert dataset.train.groups is not None and dataset.train.groups.tolist() == [k // 4 for k in range(40)]


@pytest.mark.parametrize("nothing", [None, "", float("nan")])
def test_image_without_a_group_is_on_its_own(nothing: Any) -> None:
    dataset = dataset_from_memory({"train": (PIXELS, LABELS, ["a", "a", *[nothing] * 38])})
    assert dataset.train.groups is not None and len(set(dataset.train.groups.tolist())) == 39
    assert dataset_from_memory({"train": (PIXELS, LABELS, [nothing] * 40)}).train.groups is None


@pytest.mark.parametrize("kind", ["Int64", "float64"])
def test_integer_groups_of_pandas_may_be_missing(kind: str) -> None:
    pandas = pytest.importorskip("pandas")
    groups = pandas.Series([7, 7, *[None] * 38], dtype=kind)
    dataset = dataset_from_memory({"train": (PIXELS, LABELS, groups)})
    assert dataset.train.groups is not None and len(set(dataset.train.groups.tolist())) == 39
    same = dataset_from_memory({"train": (PIXELS, LABELS, ["7", "7", *[None] * 38])})
    assert dataset.digest == same.digest


def test_groups_in_two_splits_are_noted_and_have_one_number() -> None:
    train, val = (PIXELS, LABELS, GROUPS), (PIXELS[:4], LABELS[:4], ["patient 1", "other", "other", None])
    dataset = dataset_from_memory({"train": train, "val": val})
    assert dataset.train.groups is not None and dataset.val.groups is not None
    assert dataset.val.groups[0] == dataset.train.groups[4]
    (note,) = dataset.notes
    assert note.startswith("1 group with images both in train and in val, so the val scores may be too high: patient 1")
    assert number_groups({"train": ("a", ""), "val": ()}, {"train": 2, "val": 2})[0]["val"].tolist() == [2, 3]


def test_column_group_of_hugging_face_is_read() -> None:
    rows = ColumnDataset(PIXELS, LABELS, ("dark", "light"))

    class Grouped(type(rows)):  # type: ignore[misc]
        column_names = ("image", "label", "group")

        def __getitem__(self, key: Any) -> Any:
            return GROUPS if key == "group" else super().__getitem__(key)

    dataset = dataset_from_memory({"train": Grouped(PIXELS, LABELS, ("dark", "light"))})
    assert dataset.train.groups is not None and len(set(dataset.train.groups.tolist())) == 10


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (GROUPS[:3], "train has 40 images and 3 groups; give one group per image"),
        ("patient", "groups are 'patient'; give one text or integer for each image"),
        (5, "groups are 5; give one"),
        ([1.5] * 40, "a group is 1.5; groups are texts or integers"),
        ([("a", 1)] * 40, r"a group is \('a', 1\); groups are"),
    ],
)
def test_groups_of_another_form_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(vpt.DataError, match=message):
        dataset_from_memory({"train": (PIXELS, LABELS, groups)})


def test_groups_are_part_of_the_digest_and_of_several_labels_and_numbers() -> None:
    alone, grouped = (dataset_from_memory({"train": data}) for data in ((PIXELS, LABELS), (PIXELS, LABELS, GROUPS)))
    assert alone.digest != grouped.digest
    for labels in (np.stack([LABELS, np.ones(40)], axis=1), LABELS + np.linspace(0, 1, 40)):
        dataset = dataset_from_memory({"train": (PIXELS, labels, GROUPS)})
        assert dataset.train.groups is not None and len(set(dataset.train.groups.tolist())) == 10


def test_tune_with_groups_equals_that_of_a_table_with_a_column(tmp_path: Path) -> None:
    lines = ["image,label,group"]
    for k, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        (tmp_path / f"image {k}").with_suffix(".png").write_bytes(encoded(pixels))
        lines.append(f"image {k}.png,{label},{GROUPS[k]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    options: dict[str, Any] = {"method": "linear", "ridge": 1.0, "folds": 2, "progress": False}
    table = vpt.tune(tmp_path / "labels.csv", tmp_path / "table.safetensors", **options)
    paths = [tmp_path / f"image {k}.png" for k in range(40)]
    memory = vpt.tune((paths, [str(label) for label in LABELS], GROUPS), tmp_path / "memory.safetensors", **options)
    assert table.folds == memory.folds
    evaluations = [
        vpt.evaluate(memory.file, {"test": data}, progress=False)
        for data in ((paths, LABELS.astype(str).tolist(), GROUPS), (paths, LABELS.astype(str).tolist()))
    ]
    assert [found.groups for found in evaluations] == [10, None]
