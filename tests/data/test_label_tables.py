"""Labels in CSV, JSON Lines and Parquet files."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers.label_tables import NAMES, labels_of, refusal, rows, write, write_csv
from vpt.data.find_images import find_images
from vpt.data.loading import load_dataset, load_scored_dataset
from vpt.data.task_detection import detect_task
from vpt.data.training_marks import make_marks
from vpt.errors import DataError, SpecError


@pytest.fixture
def root(draw) -> Path:
    return draw(*NAMES)


@pytest.fixture
def expected(root) -> dict[str, str]:
    return {(root / name).as_posix(): name.split("/")[0] for name in NAMES}


@pytest.mark.parametrize("kind", ["csv", "semicolons", "tsv", "jsonl", "parquet", "huggingface"])
def test_table_equals_the_same_data_as_folders(root, kind):
    folders = load_dataset(root, seed=3)
    found = rows("path", "label")
    if kind == "csv":
        write_csv(root / "labels.csv", found)
    elif kind == "semicolons":
        write_csv(root / "Labels.CSV", found, ";")
    elif kind == "tsv":
        write_csv(root / "labels.tsv", found, "\t")
    elif kind == "jsonl":
        write(root / "labels.jsonl", "".join(json.dumps(row) + "\n" for row in found))
    elif kind == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(found), root / "labels.parquet", row_group_size=7)
    else:
        write_csv(root / "metadata.csv", rows("file_name", "label"))
    assert detect_task(root) == "classification"
    tables = load_dataset(root, seed=3)
    assert tables.classes == folders.classes and tables.name == folders.name
    for name, split in folders.splits.items():
        order = np.argsort(tables.splits[name].names)
        assert sorted(split.names) == [tables.splits[name].names[i] for i in order]
        by_name = np.argsort(split.names)
        assert split.labels[by_name].tolist() == tables.splits[name].labels[order].tolist()


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [("\n \n", ";"), ("sep=;\n", ";"), ("SEP=\t\r\n", "\t"), ("\nsep=,\n", ","), ("", "|"), ("sep=|\n", "|")],
)
def test_table_whose_columns_follow_other_lines_is_read(root, expected, head, delimiter):
    path = write_csv(root / "labels.csv", rows("path", "label"), delimiter)
    write(path, head + path.read_text())
    assert labels_of(path) == expected


def test_table_with_bars_in_the_names_of_columns_is_parted_by_commas(root):
    path = write(root / "labels.csv", "path,a|b|c\nant/0.png,x\nbee/0.png,y\n")
    assert load_dataset(path, val_fraction=0, test_fraction=0).classes == ("x", "y")


def test_load_scored_dataset_of_a_split_of_one_class_is_scored(root):
    lines = ["path,label,split", *(f"{name},ant,{'test' if i < 2 else 'train'}" for i, name in enumerate(NAMES[:6]))]
    path = write(root / "labels.csv", "\n".join(lines))
    one = f"labels.csv in {root} has only one class, 'ant' (4 images); a classifier needs at least two: add images of"
    assert one in refusal(path)
    marks = make_marks([root / name for name in NAMES[2:6]])
    for trained_on in ((), marks):
        assert len(load_scored_dataset(path, "test", trained_on=trained_on).test) == 2
    with pytest.raises(DataError, match=r"2 in test: .* so test would score images that were trained on"):
        load_scored_dataset(path, "test", trained_on=make_marks([root / name for name in NAMES[:2]]))


def test_table_equals_the_csv_module_of_python(root):
    text = 'image,label\n"ant/0.png"," x, y "\r\nant/1.png,"two ""words"""\n\nbee/0.png,été\nbee/1.png,été\n'
    path = write(root / "labels.csv", text)
    with path.open(encoding="utf-8", newline="") as file:
        reference = {(root / row["image"]).as_posix(): row["label"].strip() for row in csv.DictReader(file)}
    assert labels_of(path) == reference


@pytest.mark.parametrize(
    "header",
    [
        "path,label", "image_path,class", "Filename;Category", "image,target", "img_id,breed", "id,species",
        "file_name,text", ",image,label", "Unnamed: 0,file,class_name",
    ],
)  # fmt: skip
def test_table_with_common_headers_is_read(root, expected, header):
    delimiter = ";" if ";" in header else ","
    first = header.split(delimiter)[0]
    lines = [header]
    for number, name in enumerate(NAMES):
        cells = [name, name.split("/")[0]]
        lines.append(delimiter.join([str(number), *cells] if first in ("", "Unnamed: 0") else cells))
    assert labels_of(write(root / "labels.csv", "\n".join(lines) + "\n")) == expected


def test_table_without_header_is_read(root, expected):
    write(root / "list.csv", "".join(f"{name},{name.split('/')[0]}\n" for name in NAMES))
    assert labels_of(root) == expected
    write(root / "list.csv", "".join(f"{name},1,2\n" for name in NAMES))
    assert "no line with the names of its columns" in refusal(root / "list.csv")


@pytest.mark.parametrize(
    "form",
    ["images\\{}", "C:\\Users\\me\\data\\{}", "/home/me/data/{}", "data/{}", "./{}", "../photos/{}"],
)
def test_table_with_paths_of_another_machine_finds_the_images(draw, form):
    root = draw(*(f"photos/images/{name}" for name in NAMES)) / "photos"
    written = [
        {"path": form.format(name.replace("/", "\\") if "\\" in form else f"images/{name}"), "label": name[:3]}
        for name in NAMES
    ]
    write_csv(root / "labels.csv", written)
    assert labels_of(root) == {(root / "images" / name).as_posix(): name[:3] for name in NAMES}


@pytest.mark.parametrize("ending", ["", ".png"])
def test_table_of_names_finds_images_in_any_folder(draw, ending):
    files = [f"part_{i % 2}/im{i}.png" for i in range(8)]
    root = draw(*files)
    write_csv(root / "meta.csv", [{"image_id": f"im{i}{ending}", "dx": "ab"[i % 3 == 0]} for i in range(8)])
    assert labels_of(root, label_column="dx") == {
        (root / file).as_posix(): "ab"[i % 3 == 0] for i, file in enumerate(files)
    }


def test_table_of_names_that_two_images_have_is_refused(draw):
    root = draw("a/1.png", "b/1.png", "a/2.png")
    write(root / "labels.csv", "image,label\n1,x\n2,y\n")
    assert "labels.csv line 2: '1' can be a/1.png, b/1.png; write the path" in refusal(root)
    root = draw("train/1.png", "train/2.png", "test/1.png", "test/2.png")
    write(root / "labels.csv", "image,label,split\n1,x,train\n2,y,train\n1,x,test\n2,y,test\n")
    assert load_dataset(root, val_fraction=0).test.names == ("test/1.png", "test/2.png")


def test_table_paths_are_not_taken_for_others_of_the_same_name(draw):
    root = draw("ant/1.png", "bee/2.png")
    write(root / "labels.csv", "path,label\nant/1.png,x\nant/2.png,y\n")
    assert "labels.csv line 3: no such image: 'ant/2.png'" in refusal(root)


@pytest.mark.parametrize("listed", ["data/cat/{}", "/home/me/cat/{}", "cat/{}"])
def test_table_paths_keep_their_folder_in_a_subfolder(draw, listed):
    root = draw("dog/1.png", "dog/2.png", "bird/3.png")
    write(root / "labels.csv", f"path,label\n{listed.format('1.png')},x\n{listed.format('2.png')},y\n")
    assert f"labels.csv line 2: no such image: '{listed.format('1.png')}'" in refusal(root / "labels.csv")


def test_table_paths_with_a_guessed_folder_that_lacks_one_are_not_found(draw):
    root = draw("images/cat/1.png", "images/dog/3.png")
    write(root / "labels.csv", "path,label\n/home/me/cat/1.png,x\n/home/me/cat/2.png,y\n/home/me/dog/3.png,y\n")
    assert "3 faults" in refusal(root / "labels.csv")


@pytest.mark.parametrize("labels", ["0 1", "3 11", "2.0 10.0", "-1 1"])
def test_table_with_integer_labels_keeps_their_order(root, labels):
    first, second = labels.split()
    write_csv(root / "y.csv", [{"path": n, "y": first if n.startswith("ant") else second} for n in NAMES])
    dataset = load_dataset(root)
    assert dataset.classes == (first.removesuffix(".0"), second.removesuffix(".0"))
    names = dict(zip(dataset.train.names, dataset.train.labels.tolist(), strict=True))
    assert all(label == int(name.startswith("bee")) for name, label in names.items())


def test_table_with_a_column_of_splits_is_split_by_it(root):
    splits = ["Training"] * 6 + ["valid"] * 2 + ["TEST"] * 2
    found = [{**row, "subset": splits[i % 10]} for i, row in enumerate(rows("path", "label"))]
    write_csv(root / "labels.csv", found)
    dataset = load_dataset(root)
    assert [len(split) for split in dataset.splits.values()] == [12, 4, 4]
    assert dataset.test.names == ("ant/8.png", "ant/9.png", "bee/8.png", "bee/9.png")
    found[4]["subset"], found[5]["subset"] = "other", ""
    write_csv(root / "labels.csv", found)
    text = refusal(root)
    assert "labels.csv line 6: subset is 'other'; a split is train, val or test" in text
    assert "labels.csv line 7: subset is None" in text


@pytest.mark.parametrize("given", [False, True])
def test_tables_of_splits_are_read_together(root, given):
    train, test = ([name for name in NAMES if (name[4] in "89") == is_test] for is_test in (False, True))
    paths = [
        write_csv(root / "train.csv", rows("path", "label", names=train)),
        write_csv(root / "test.csv", rows("path", "label", names=test)),
    ]
    dataset = load_dataset(",".join(map(str, paths)) if given else root, val_fraction=0)
    assert sorted(dataset.train.names) == sorted(train) and sorted(dataset.test.names) == sorted(test)
    assert dataset.name == root.name


def test_tables_without_names_of_splits_are_one_set(root, expected):
    write_csv(root / "ants.csv", rows("path", "label", names=NAMES[:10]))
    write_csv(root / "bees.csv", rows("path", "label", names=NAMES[10:]))
    assert labels_of(root) == expected
    write_csv(root / "train.csv", rows("path", "label"))
    assert "others (ants.csv, bees.csv); give those that are meant" in refusal(root)


def test_table_with_faults_names_each_line(root):
    lines = [
        "path,label", "ant/0.png,ant", "ant/99.png,ant", "ant/1.png,", ",ant", "ant/2.png,ant,3", "ant/3.png",
        '"ant/4.png","a', 'b"', "ant/0.png,ant", "ant/0.png,bee", "bee/0.png,bee",
    ]  # fmt: skip
    text = refusal(write(root / "labels.csv", "\n".join(lines) + "\n"))
    for fault in (
        "7 faults in labels.csv",
        "labels.csv line 3: no such image: 'ant/99.png'",
        "labels.csv line 4: no label: the column label is empty",
        "labels.csv line 5: no image: the column path is empty",
        "labels.csv line 6: 3 cells, and there are 2 columns",
        "labels.csv line 7: 1 cells, and there are 2 columns",
        "labels.csv line 10: 'ant/0.png' is already in line 2\n",
        "labels.csv line 11: 'ant/0.png' is already in line 2, with label ant there and bee here",
    ):
        assert fault in text
    path = write(root / "labels.jsonl", '{"path": "ant/0.png", "label": "ant"}\n[1]\n{"path": \n')
    text = refusal(path)
    assert "labels.jsonl line 2: not a JSON object" in text and "labels.jsonl line 3: not JSON" in text


def test_tables_that_disagree_name_both_lines(root):
    write_csv(root / "train.csv", rows("path", "label"))
    write(root / "test.csv", "path,label\nant/0.png,bee\n")
    assert "test.csv line 2: 'ant/0.png' has label bee, but ant in train.csv line 2" in refusal(root)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"path,label\nant/0.png,\xff\n", "is not UTF-8 text"),
        (b"", "labels.csv has no rows"),
        (b"path,label\n", "labels.csv has no rows"),
        (b"a,b\n1,2\n", "has the columns a, b, of which none is clearly that of the images"),
        (b"path,b,c\nant/0.png,2,3\n", "of which none is called label; name the one of the labels, such as"),
        (b"path,label,label\nant/0.png,2,3\n", "two columns are called label"),
        (b'path,label\nant/0.png,"ant\n', "labels.csv line 2: unexpected end of data"),
    ],
)
def test_table_that_cannot_be_read_says_why(root, content, reason):
    (root / "labels.csv").write_bytes(content)
    assert reason in refusal(root / "labels.csv")


def test_table_with_columns_that_are_given(root, expected):
    found = [{"a": "1.png", "b": row["path"], "c": "x", "d": row["label"]} for row in rows("path", "label")]
    path = write_csv(root / "labels.csv", found)
    assert labels_of(path, image_column="b", label_column="d") == expected
    assert "has no column 'e'; correct --label-column" in refusal(path, image_column="b", label_column="e")


@pytest.mark.parametrize("column", ["split", "group", "set"])
def test_table_with_a_given_column_has_no_other_role_for_it(root, column):
    path = write_csv(root / "labels.csv", rows("path", column))
    dataset = load_dataset(path, label_column=column)
    assert dataset.classes == ("ant", "bee") and dataset.train.groups is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"label_column": "label, label"}, "the column label is given twice"),
        ({"label_column": "label", "group_column": "label"}, "the column label is given twice"),
        ({"label_column": "path"}, "path is the column of images"),
    ],
)
def test_table_with_a_column_of_two_roles_is_refused(root, options, reason):
    write_csv(root / "labels.csv", rows("path", "label"))
    for source in (root, root / "labels.csv"):
        with pytest.raises(SpecError, match=reason):
            load_dataset(source, **options)


def test_table_notes_images_that_it_does_not_list(root):
    write_csv(root / "labels.csv", rows("path", "label", names=NAMES[1:-1]))
    note = f"2 images below {root} not used, since no table lists them: ant/0.png, bee/9.png"
    assert note in load_dataset(root).notes


def test_table_of_images_themselves_names_the_command(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"image": [b"x"], "label": [0]}), tmp_path / "t.parquet")
    assert f"vpt data import {tmp_path / 't.parquet'} --out FOLDER" in refusal(tmp_path / "t.parquet")


def test_table_with_class_labels_of_hugging_face_has_their_names(root, expected):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"file_name": NAMES, "label": [int(name.startswith("bee")) for name in NAMES]})
    features = {"label": {"_type": "ClassLabel", "names": ["ant", "bee"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), root / "data.parquet")
    assert labels_of(root) == expected


def test_load_scored_dataset_of_a_table_is_whole(draw):
    root = draw(*(f"data/{name}" for name in NAMES), *(f"new/{name}" for name in NAMES[:3]))
    marks = make_marks(load_dataset(root / "data").train.paths)
    path = write_csv(root / "new" / "labels.csv", rows("path", "label", names=NAMES[:3]))
    notes: list[str] = []
    dataset = load_scored_dataset(path, "test", trained_on=marks, on_note=notes.append)
    assert Counter(dataset.classes[label] for label in dataset.test.labels) == {"ant": 3}
    assert "all of it is measured: 3 images" in notes[0]


def test_find_images_of_a_table_lists_its_images(root):
    path = write(root / "new.csv", "image,remark\nant/3.png,x\nbee/1.png,\n")
    assert find_images([path]) == [root / "ant/3.png", root / "bee/1.png"]
    write(root / "new.csv", "image\nant/3.png\nnone.png\n")
    with pytest.raises(DataError, match=r"new.csv line 3: no such image: 'none.png'"):
        find_images([path])
