"""Folders that hold tables, of labels or of something else, beside images."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import pytest

from helpers.label_tables import NAMES, labels_of, refusal, rows, write, write_csv
from vpt.data.loading import load_dataset
from vpt.data.task_detection import detect_task


@pytest.fixture
def root(draw) -> Path:
    return draw(*NAMES)


@pytest.fixture
def expected(root) -> dict[str, str]:
    return {(root / name).as_posix(): name.split("/")[0] for name in NAMES}


def test_tables_in_folders_of_splits_are_read(draw):
    root = draw(*(f"train/{i}.png" for i in range(4)), *(f"test/{i}.png" for i in range(2)))
    for split, count in (("train", 4), ("test", 2)):
        found = [{"file_name": f"{i}.png", "label": "ab"[i % 2]} for i in range(count)]
        write_csv(root / split / "metadata.csv", found)
    dataset = load_dataset(root, val_fraction=0)
    assert dataset.train.names == tuple(f"train/{i}.png" for i in range(4))
    assert dataset.test.names == ("test/0.png", "test/1.png") and dataset.classes == ("a", "b")
    write(root / "test/metadata.csv", "file_name,label\n0.png,a\n7.png,b\n")
    assert "test/metadata.csv line 3: no such image: '7.png'" in refusal(root)


def test_folder_with_an_unclear_table_names_its_columns(draw):
    root = draw("1.png", "2.png")
    write(root / "meta.csv", "image,dx,age\n1,a,3\n2,b,4\n")
    assert "has the columns image, dx, age, of which none is called label" in refusal(root)
    assert load_dataset(root, label_column="dx", val_fraction=0, test_fraction=0).classes == ("a", "b")


@pytest.mark.parametrize(
    "text",
    [
        "image,class,probability\nant/0.png,bee,0.9\nbee/0.png,ant,0.9\n",
        "name,width\nx,3\n",
        "filename,photographer\nant/0.png,Ann\nbee/0.png,Bo\n",
        "path,prediction\nant/0.png,1.5\nbee/0.png,2.5\n",
        "image,blurry,night\nant/0.png,0,1\nbee/0.png,1,0\n",
        "image,mask\nant/0.png,bee/0.png\n",
        "image,label\nant/0.png,bee/0.png\n",
        "not a table",
    ],
)
def test_folder_of_classes_passes_over_other_tables(root, expected, text):
    write(root / "answers.csv", text)
    assert labels_of(root) == expected


def test_folder_of_classes_with_a_table_of_labels_notes_which_it_reads(root):
    write_csv(root / "labels.csv", rows("path", "label"))
    note = "labels are those of labels.csv; the folders ant, bee are not read as classes"
    assert note in load_dataset(root).notes


def test_folder_without_classes_reads_the_only_other_column(draw):
    root = draw(*(f"images/{i}.png" for i in range(4)))
    write_csv(root / "breeds.csv", [{"filename": f"{i}.png", "breed": "ab"[i % 2]} for i in range(4)])
    assert set(labels_of(root).values()) == {"a", "b"}


@pytest.mark.parametrize(("stored", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize(("folder", "ending"), [("", ".png"), ("", ""), ("médias/", ".png")])
def test_table_and_files_may_write_accents_in_either_way(draw, stored, written, folder, ending):
    root = draw(*(unicodedata.normalize(stored, f"médias/été {i}.png") for i in range(4)))
    images = [unicodedata.normalize(written, f"{folder}été {i}{ending}") for i in range(4)]
    write_csv(root / "labels.csv", [{"image": image, "label": "ab"[i % 2]} for i, image in enumerate(images)])
    assert list(labels_of(root).values()) == ["a", "b", "a", "b"]


def test_folder_of_masks_with_a_table_of_photographers_is_for_segmentation(draw):
    root = draw(*(f"images/{i}.png" for i in range(3)))
    draw(*(f"masks/{i}.png" for i in range(3)), color=(1, 1, 1))
    write(root / "about.csv", "filename,photographer\n0.png,Ann\n1.png,Bo\n")
    assert detect_task(root) == "segmentation"


def test_folder_with_a_table_that_cannot_be_read_says_why(root, expected):
    (root / "labels.csv").write_bytes("path,label\nant/0.png,été\n".encode("cp1252"))
    assert labels_of(root) == expected
    assert any("labels.csv is not UTF-8 text (byte 21)" in note for note in load_dataset(root).notes)


def test_folder_with_a_parquet_table_without_pyarrow_says_why(root, expected, monkeypatch):
    (root / "labels.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert labels_of(root) == expected
    assert any("labels.parquet, a Parquet file, needs pyarrow" in note for note in load_dataset(root).notes)


def test_folder_without_classes_with_a_table_that_cannot_be_read_says_why(draw):
    root = draw("1.png", "2.png")
    write(root / "labels.csv", "path,label,label\n1.png,a,b\n")
    assert "two columns are called label" in refusal(root)


@pytest.mark.parametrize("column", ["score", "confidence"])
def test_folder_with_a_table_of_a_given_score_is_read_by_it(root, column):
    write_csv(root / "labels.csv", [{"path": name, column: str(i / 3)} for i, name in enumerate(NAMES)])
    assert load_dataset(root).classes == ("ant", "bee")
    assert load_dataset(root, label_column=column).classes == (column,)


def test_table_is_read_beside_folders_that_are_not(draw, make_unreadable):
    root = draw(*(f"photos/{name}" for name in NAMES), "private/1.png")
    listed = [{"path": f"../photos/{name}", "label": name[:3]} for name in NAMES[:-1]]
    first, second = (write_csv(root / folder / "labels.csv", listed) for folder in ("a", "b"))
    make_unreadable(root / "private")
    dataset = load_dataset(f"{first},{second}")
    assert dataset.classes == ("ant", "bee")
    assert f"1 image below {root} not used, since no table lists them: photos/bee/9.png" in dataset.notes
