"""Tables with several labels of an image, and with numbers to predict."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import MultiLabelBinarizer

from vpt.data.loading import load_dataset
from vpt.errors import DataError, SpecError
from vpt.tuning import make_job

NAMES = [f"{i}.png" for i in range(12)]
SETS = [("cat",), ("cat", "dog"), (), ("bird", "cat", "dog"), ("dog",), ("bird",)] * 2


@pytest.fixture
def root(draw) -> Path:
    return draw(*NAMES)


def write(root: Path, columns: dict[str, list[object]], name: str = "labels.csv") -> Path:
    with (root / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *columns])
        writer.writerows(zip(NAMES, *columns.values(), strict=True))
    return root / name


def whole(path: Path, **options: object):
    return load_dataset(path, val_fraction=0, test_fraction=0, **options)


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("form", ["joined", "json in csv", "lists", "columns", "booleans"])
def test_table_of_several_labels_equals_the_binarizer_of_scikit_learn(root, form):
    binarizer = MultiLabelBinarizer()
    expected = binarizer.fit_transform(SETS)
    if form == "joined":
        path = write(root, {"label": ["|".join(reversed(names)) for names in SETS]})
    elif form == "json in csv":
        path = write(root, {"label": [json.dumps(names) for names in SETS]})
    elif form == "lists":
        path = root / "labels.jsonl"
        rows = [{"image": name, "label": list(names)} for name, names in zip(NAMES, SETS, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        values = expected.astype(bool) if form == "booleans" else expected
        path = write(root, {name: list(values[:, k]) for k, name in enumerate(binarizer.classes_)})
    data = whole(path)
    assert data.classes == tuple(binarizer.classes_) and data.label_kind == "multi_label"
    assert data.train.labels.dtype == np.float32 and np.array_equal(data.train.labels, expected)


def test_table_of_several_labels_with_given_columns(root):
    columns = {"age": list(range(12)), "dog": [0, 1] * 6, "cat": [1, 1, 0] * 4}
    path = write(root, columns)
    assert "none is called label" in refusal(path)
    data = whole(path, label_column="dog, cat")
    assert data.classes == ("dog", "cat")
    assert np.array_equal(data.train.labels, np.stack([columns["dog"], columns["cat"]], axis=1))


def test_table_of_one_hot_columns_has_single_labels(root):
    path = write(root, {"MEL": ["1.0", "0.0"] * 6, "NV": ["0.0", "1.0"] * 6})
    data = whole(path)
    assert data.label_kind == "single_label" and data.classes == ("MEL", "NV")
    assert data.train.labels.tolist() == [0, 1] * 6
    assert whole(path, label_kind="multi_label").train.labels.tolist() == [[1, 0], [0, 1]] * 6


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_table_of_numbers_is_for_regression(root, name):
    values = (np.arange(12) * 1.5 - 3).tolist()
    if name.endswith("csv"):
        path = write(root, {"weight": values})
    else:
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        path = root / name
        pq.write_table(pa.table({"image": NAMES, "weight": values}), path)
    data = whole(path)
    assert data.label_kind == "regression" and data.classes == ("weight",)
    assert data.train.labels.dtype == np.float32 and data.train.labels.tolist() == values
    assert {len(split) for split in load_dataset(path).splits.values()} == {8, 2}


def test_table_of_integers_is_for_regression_if_told(root):
    path = write(root, {"age": [20, 31, 42] * 4})
    assert whole(path).classes == ("20", "31", "42")
    assert whole(path, label_kind="regression").train.labels.tolist() == [20, 31, 42] * 4


def test_table_of_several_labels_keeps_groups_whole(root):
    path = write(root, {"label": ["|".join(names) for names in SETS], "group": [i // 2 for i in range(12)]})
    splits = load_dataset(path).splits.values()
    sides = [set(split.groups.tolist()) for split in splits]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 6


@pytest.mark.parametrize(
    ("columns", "options", "reason"),
    [
        (
            {"a": [1, 0, 2, *[0] * 9], "b": [1] * 12},
            {"label_column": "a,b"},
            "labels.csv line 4: a is '2'; give 0 or 1",
        ),
        ({"y": ["0.5", "x", *["1"] * 10]}, {"label_kind": "regression"}, "line 3: y is 'x'; give a finite number"),
        ({"y": ["0.5", "", *["1"] * 10]}, {"label_kind": "regression"}, "line 3: no label: the column y is empty"),
        ({"y": ["inf", "0.5", *["1"] * 10]}, {}, "line 2: y is 'inf'; give a finite number"),
        ({"y": ["a|b", "[1,", *["a"] * 10]}, {}, "line 3: y is '[1,'; give names of classes"),
        ({"y": ["0.5"] * 12}, {}, "all training images of labels.csv have the label 0.5"),
        ({"y": ["a|b"] * 12}, {}, "all training images of labels.csv have the label a, b"),
        ({"a": [1] * 12, "b": [1] * 12}, {"label_kind": "single_label"}, "line 2: 2 classes are 1; give one"),
    ],
)
def test_table_with_faulty_labels_names_the_lines(root, columns, options, reason):
    assert reason in refusal(write(root, columns), **options)


@pytest.mark.parametrize("empty", ["null", '""', "[]"])
def test_json_lines_of_several_labels_without_a_key_are_refused(root, empty):
    lines = [f'{{"image": "{name}", "label": ["a", "b"]}}' for name in NAMES]
    lines[1] = f'{{"image": "1.png", "label": {empty}}}'
    path = root / "labels.jsonl"
    path.write_text("\n".join(lines))
    assert whole(path).train.labels[1].tolist() == [0, 0]
    lines[1] = '{"image": "1.png"}'
    path.write_text("\n".join(lines))
    assert "labels.jsonl line 2: no label: label is missing" in refusal(path)


def test_json_lines_with_an_integer_beyond_floats_are_refused(root):
    lines = [f'{{"image": "{name}", "label": {10**400 if name == "1.png" else 0.5}}}' for name in NAMES]
    (root / "labels.jsonl").write_text("\n".join(lines))
    assert "labels.jsonl line 2: label is 1000" in refusal(root / "labels.jsonl", label_kind="regression")


def test_table_of_two_columns_for_regression_is_refused(root):
    path = write(root, {"a": [0, 1] * 6, "b": [1, 0] * 6})
    text = refusal(path, label_column="a,b", label_kind="regression")
    assert "label_kind is regression" in text and "are a, b; give one column of numbers" in text


def test_label_kind_that_is_unknown_is_refused(root):
    with pytest.raises(SpecError, match=r"label_kind is 'number'; .*known: multi_label, regression, single_label"):
        load_dataset(write(root, {"y": [1] * 12}), label_kind="number")


def test_make_job_of_numbers_takes_the_optimizer_of_regression(root):
    numbers = make_job(str(write(root, {"weight": [i / 2 for i in range(12)]})), epochs=1, method="linear")
    classes = make_job(str(write(root, {"label": [i % 2 for i in range(12)]})), epochs=1, method="linear")
    assert numbers.config.training.optimizer == "adamw" and classes.config.training.optimizer == "sgd"
