"""Tables with several labels of an image, and with numbers to predict."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import MultiLabelBinarizer

from vpt.data.loading import load_dataset, load_scored_dataset
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
    assert data.train.labels.dtype == np.float64 and data.train.labels.tolist() == values
    assert {len(split) for split in load_dataset(path).splits.values()} == {8, 2}


def test_table_of_names_with_underscores_has_classes(root):
    data = whole(write(root, {"label": ["1_5", "2_5"] * 6}))
    assert data.label_kind == "single_label" and data.classes == ("1_5", "2_5")
    mixed = write(root, {"weight": ["1_5", *["0.5"] * 11]})
    assert "line 2: weight is '1_5'; give a finite number" in refusal(mixed, label_kind="regression")


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


@pytest.mark.parametrize("kind", [None, "multi_label"])
@pytest.mark.parametrize("form", ["lists", "booleans", "json in csv", "joined", "two classes"])
def test_lists_of_0_and_1_for_each_class_are_refused(root, form, kind):
    sets = [[1, 0, 0], [0, 1, 1], [0, 0, 0]] * 4 if form != "two classes" else [[1, 0], [0, 1]] * 6
    if form in ("lists", "booleans"):
        path = root / "labels.jsonl"
        rows = [{"image": name, "label": [bool(x) if form == "booleans" else x for x in row]}
                for name, row in zip(NAMES, sets, strict=True)]  # fmt: skip
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path = write(root, {"label": [json.dumps(x) if form == "json in csv" else "|".join(map(str, x)) for x in sets]})
    text = refusal(path, label_kind=kind)
    assert "the column label holds [" in text and "0 or 1 for each class; write a column for each class" in text


def test_lists_of_the_numbers_of_classes_are_read(root):
    path = write(root, {"label": ["[0, 1]", "[1]", "[0]", "[0, 1]"] * 3})
    assert whole(path).classes == ("0", "1") and whole(path).train.labels.tolist()[:2] == [[1, 1], [0, 1]]


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


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["3,5", "4", "-0,25", None], [3.5, 4, -0.25]),
        (["1.234,5", "12.000.000,25", "7"], [1234.5, 12000000.25, 7]),
    ],
)
@pytest.mark.parametrize(("delimiter", "ending"), [(";", "csv"), ("\t", "tsv")])
def test_table_with_decimal_commas_is_for_regression(root, delimiter, ending, values, expected):
    lines = [f"{name}{delimiter}{value}" for name, value in zip(NAMES, values, strict=False) if value is not None]
    path = root / f"labels.{ending}"
    path.write_text("\n".join([f"image{delimiter}age", *lines]) + "\n")
    data = whole(path)
    assert data.label_kind == "regression" and data.train.labels.tolist() == pytest.approx(expected)
    assert f"commas in the column age of {path.name} are read as decimal points" in data.notes


@pytest.mark.parametrize("values", [["3,5", "a"], ["1,2", "1,2,3"], ["1,2", "x,y"]])
def test_table_with_commas_that_are_no_decimals_has_classes(root, values):
    path = root / "labels.csv"
    path.write_text("image;kind\n" + "".join(f"{name};{value}\n" for name, value in zip(NAMES, values, strict=False)))
    data = whole(path)
    assert data.classes == tuple(sorted(values)) and not any("decimal" in note for note in data.notes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", 'image,kind\n0.png,"3,5"\n1.png,"4,5"\n'),
        ("labels.csv", 'image,kind\n0.png,"3,5"\n1.png,4\n2.png,"-1.000,5"\n'),
        ("labels.jsonl", '{"image": "0.png", "kind": "3,5"}\n{"image": "1.png", "kind": "4,5"}\n'),
        ("labels.jsonl", '{"image": "0.png", "kind": "3,5"}\n{"image": "1.png", "kind": 4}\n'),
    ],
)
def test_table_whose_commas_may_be_decimal_is_asked_about(root, name, text):
    path = root / name
    path.write_text(text)
    text = refusal(path)
    assert "the column kind holds '3,5' and the like" in text
    assert "--label-kind regression" in text and "--label-kind single_label" in text
    data = whole(path, label_kind="regression")
    assert data.train.labels.tolist()[0] == 3.5 and data.train.labels.tolist()[1] in (4, 4.5)
    assert f"commas in the column kind of {name} are read as decimal points" in data.notes
    assert "3,5" in whole(path, label_kind="single_label").classes


@pytest.mark.parametrize("kind", [None, "regression"])
@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_table_whose_commas_may_be_thousands_is_refused(root, name, kind):
    path = root / name

    def write_values(*values: str) -> None:
        cells = list(zip(NAMES, values, strict=False))
        lines = [f'{image},"{value}"' for image, value in cells]
        if name.endswith("jsonl"):
            lines = [json.dumps({"image": image, "price": value}) for image, value in cells]
        path.write_text("\n".join(lines if name.endswith("jsonl") else ["image,price", *lines]) + "\n")

    write_values("950", "1,200", "-12,750")
    text = refusal(path, label_kind=kind)
    assert "the column price holds '1,200' and the like, 1200 or 1.200;" in text
    assert "remove the commas of thousands, or write decimal points" in text
    assert whole(path, label_kind="single_label").classes == ("-12,750", "1,200", "950")
    write_values("1,200", "0,125")  # no thousands begin with 0
    assert whole(path, label_kind="regression").train.labels.tolist() == pytest.approx([1.2, 0.125])


def test_columns_that_a_user_gives_for_scored_data_must_be_there(draw):
    root = draw(*(f"{kind}/{i}.png" for kind in "ab" for i in range(5)))
    for trained_on in ((), ("1:0",)):
        options = {"trained_on": trained_on, "label_column": "kind", "group_column": "patient"}
        with pytest.raises(SpecError, match=r"label_column is 'kind', and .* is read as a folder, without a table"):
            load_scored_dataset(root, "test", given_columns=("label_column",), **options)
        assert len(load_scored_dataset(root, "test", **options).test)
    table = write(root, {"kind": ["x", "y"] * 6, "fold": ["a"] * 12}, "labels.csv")
    options = {"trained_on": ["1:0"], "label_column": "kind", "split_column": "part"}
    with pytest.raises(DataError, match=r"labels.csv has no column 'part'; correct --split-column"):
        load_scored_dataset(table, "test", given_columns=("split_column",), **options)


def test_column_that_begins_late_in_json_lines_is_there(root):
    rows = [{"image": NAMES[i % 12], "label": "ab"[i % 2]} for i in range(24)] + [{"image": "11.png", "label": "b"}]
    rows[-1]["patient"] = "x"
    (root / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = {"trained_on": ["1:0"], "group_column": "patient"}
    with pytest.raises(DataError) as caught:  # not of the column, but of the images that are listed twice
        load_scored_dataset(root / "labels.jsonl", "test", given_columns=("group_column",), **options)
    assert "no column" not in str(caught.value)


def test_columns_for_data_in_memory_are_refused(root):
    data = whole(write(root, {"kind": ["x", "y"] * 6}))
    with pytest.raises(SpecError, match=r"group_column is 'patient', and labels is in memory, without a table"):
        make_job(data, "a.safetensors", group_column="patient")
    with pytest.raises(SpecError, match=r"label_kind is 'regression', and labels is in memory"):
        make_job(data, "a.safetensors", label_kind="regression")
    assert make_job(data, "a.safetensors", label_kind="single_label")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"label_column": "kind"}, "label_column is 'kind'"),
        ({"image_column": "file"}, "image_column is 'file'"),
        ({"split_column": "fold"}, "split_column is 'fold'"),
        ({"group_column": "patient"}, "group_column is 'patient'"),
        ({"label_kind": "regression"}, "label_kind is 'regression'"),
    ],
)
def test_columns_for_data_without_a_table_are_refused(draw, options, name):
    root = draw(*(f"{kind}/{i}.png" for kind in "ab" for i in range(5)))
    for source in (root, "digits"):
        with pytest.raises(SpecError, match=f"{name}, and .* is read as .*, without a table of labels; leave it out"):
            load_dataset(source, **options)
    assert load_dataset(root, label_kind="single_label").classes == ("a", "b")
    (root / "train.txt").write_text("".join(f"a/{i}.png 0\nb/{i}.png 1\n" for i in range(4)))
    (root / "test.txt").write_text("a/4.png 0\nb/4.png 1\n")
    with pytest.raises(SpecError, match=f"{name}, and .* is read as .*, without a table"):
        load_dataset(root, **options)


def test_split_names_for_data_without_folders_of_splits_are_refused(draw):
    root = draw(*(f"{split}/{kind}/{i}.png" for split in ("fit", "check") for kind in "ab" for i in range(5)))
    names = "train=fit,test=check"
    assert len(load_dataset(root, split_names=names).test) == 10
    (root / "train.txt").write_text("".join(f"fit/a/{i}.png 0\nfit/b/{i}.png 1\n" for i in range(5)))
    (root / "test.txt").write_text("check/a/4.png 0\ncheck/b/4.png 1\n")
    for source in (root, "digits", load_dataset(root)):
        with pytest.raises(SpecError, match=f"split_names is '{names}', and .*; these data are .*; leave it out"):
            load_dataset(source, split_names=names)
    assert len(load_dataset(root, split_names=names, columns_are_recorded=True).test) == 2


def test_columns_of_the_training_are_not_asked_of_other_folders(draw):
    root = draw(*(f"{kind}/{i}.png" for kind in "ab" for i in range(5)))
    scored = load_scored_dataset(root, "test", trained_on=["1:0"], label_column="kind", group_column="patient")
    assert len(scored.test) == 10
    assert len(load_scored_dataset(root, "test", label_column="kind").test) == 2  # split as in training


def test_column_that_a_table_in_a_folder_of_classes_lacks_is_named(draw):
    root = draw(*(f"{kind}/{i}.png" for kind in "ab" for i in range(5)))
    (root / "labels.csv").write_text("image,kind\na/0.png,x\nb/0.png,y\n")
    with pytest.raises(DataError, match=r"labels.csv has no column 'knd'; correct --label-column; did you mean 'kind'"):
        load_dataset(root, label_column="knd")
