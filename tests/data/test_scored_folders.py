"""Folders that a model is scored on: whole, unless they hold images of the training."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.find_images import find_images
from vpt.data.loading import load_dataset, load_scored_dataset
from vpt.data.masks.dataset import load_segmentation_dataset
from vpt.data.training_marks import has_marked, make_marks
from vpt.errors import DataError


def classes_in(*folders: str, count: int = 10) -> list[str]:
    return [f"{folder}/{name}/{i}.png" for folder in folders for name in ("ant", "bee") for i in range(count)]


@pytest.fixture
def trained_on(draw) -> list[str]:
    return make_marks(load_dataset(draw(*classes_in("data")) / "data").train.paths)


@pytest.mark.parametrize("folder", ["held_out", "new", "test", "Testing/x", "train", "photos/2024"])
@pytest.mark.parametrize("inside", ["{}", "{}/test", "{}/Testing", "{}/val", "{}/train"])
def test_load_scored_dataset_of_other_images_is_whole(draw, trained_on, folder, inside):
    root = draw(*classes_in("other/" + inside.format(folder)))
    notes: list[str] = []
    scored = root / "other" / folder
    dataset = load_scored_dataset(scored, "test", trained_on=trained_on, on_note=notes.append)
    whole = f"{scored} has no test split and no training image, so all of it is measured: 20 images"
    assert notes == ([] if inside in ("{}/test", "{}/Testing") else [whole])
    assert len(dataset.test) == 20 and not len(dataset.train) and dataset.classes == ("ant", "bee")


def test_load_scored_dataset_with_the_split_has_its_images_alone(draw, trained_on):
    root = draw(*classes_in("other/Training"), *classes_in("other/Validation", count=3), "other/Testing/bee/1.png")
    dataset = load_scored_dataset(root / "other", "test", trained_on=trained_on)
    assert dataset.classes == ("bee",) and dataset.test.names == ("Testing/bee/1.png",)
    assert len(load_scored_dataset(root / "other", "val", trained_on=trained_on).val) == 6


def test_load_scored_dataset_of_training_images_splits_as_in_training(draw, trained_on):
    root = draw(*classes_in("more", count=2))
    expected = load_dataset(root / "data").test.names
    assert load_scored_dataset(root / "data", "test", trained_on=trained_on).test.names == expected
    (root / "data").rename(root / "moved")
    assert load_scored_dataset(root / "moved", "test", trained_on=trained_on).test.names == expected
    shutil.copytree(root / "more/ant", root / "moved/ant/new")
    assert 0 < len(load_scored_dataset(root / "moved", "test", trained_on=trained_on).test) < 10


def test_load_scored_dataset_without_its_test_images_notes_that_val_is_scored(draw, trained_on):
    root, notes = draw(), list[str]()
    val = {path.name for path in load_dataset(root / "data").val.paths}
    for path in load_dataset(root / "data").test.paths:
        path.unlink()
    again = load_scored_dataset(root / "data", "test", trained_on=trained_on, on_note=notes.append)
    assert {path.name for path in again.test.paths} <= val
    (note,) = notes
    assert "of the 12 training images that the tuned file marks, 4 in val: the images or the seed changed" in note
    assert note.endswith("so test may hold images that were val in training")
    with pytest.raises(DataError, match=r"4 in val: .* so val would score images that were trained on; score a"):
        load_scored_dataset(root / "data", "val", trained_on=trained_on)
    assert len(load_scored_dataset(root / "data", "train", trained_on=trained_on).train) == len(again.train)


@pytest.mark.parametrize("train_on", ["train", "trainval"])
def test_load_scored_dataset_with_training_images_in_test_is_refused(draw, trained_on, train_on):
    root = draw()
    for split in ("val", "test"):
        for path in getattr(load_dataset(root / "data"), split).paths:
            path.unlink()
    with pytest.raises(DataError, match=r"in test: .* so test would score images that were trained on; score a"):
        load_scored_dataset(root / "data", "test", trained_on=trained_on, train_on=train_on)


def test_load_scored_dataset_with_another_seed_is_refused(draw, trained_on):
    with pytest.raises(DataError, match="so test would score images that were trained on"):
        load_scored_dataset(draw() / "data", "test", trained_on=trained_on, seed=1)


def test_load_scored_dataset_with_copies_of_training_images_is_scored(draw, trained_on):
    dataset, notes = load_dataset(draw() / "data"), list[str]()
    shutil.copy(dataset.train.paths[0], dataset.test.paths[0])
    scored = load_scored_dataset(dataset.train.paths[0].parents[1], "test", trained_on=trained_on, on_note=notes.append)
    assert scored.test.names == dataset.test.names and not notes


def test_load_scored_dataset_of_test_rows_alone_notes_copies_of_training_images(draw, trained_on):
    dataset, notes = load_dataset(draw() / "data"), list[str]()
    root = dataset.train.paths[0].parents[1]
    for copied, name in zip(dataset.train.paths, dataset.test.names, strict=False):
        shutil.copy(copied, root / name)
    rows = "".join(f"{name},{name.split('/')[0]},test\n" for name in dataset.test.names)
    (root / "test.csv").write_text(f"path,label,split\n{rows}")
    scored = load_scored_dataset(root / "test.csv", "test", trained_on=trained_on, on_note=notes.append)
    assert len(scored.test) == len(dataset.test)
    assert re.search(r"test holds \d+ images? that were trained on, so the score may be too high", notes[0])


def test_load_scored_dataset_of_lists_is_whole(draw, trained_on):
    root = draw(*classes_in("lists"))
    names = [f"{name}/{i}.png" for name in ("ant", "bee") for i in range(10)]
    (root / "lists/train.txt").write_text("".join(f"{name} {int('bee' in name)}\n" for name in names))
    notes: list[str] = []
    dataset = load_scored_dataset(root / "lists", "test", trained_on=trained_on, on_note=notes.append)
    assert len(dataset.test) == 20 and len(notes) == 1 and "lists has no test split" in notes[0]


def test_load_scored_dataset_passes_over_hidden_copies(draw, trained_on):
    hidden = ("o/ant/._0.png", "o/ant/.ipynb_checkpoints/0.png", "o/__MACOSX/ant/0.png", "o/bee/@eaDir/0.png")
    root = draw(*classes_in("o", count=3), "o/ant/deep/er/x.png", *hidden)
    assert len(load_scored_dataset(root / "o", "test", trained_on=trained_on).test) == 7
    assert len(find_images([root / "o"])) == 7


def test_has_marked_of_equal_sizes_compares_content(tmp_path):
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / name).write_bytes(content)
    marks = make_marks([tmp_path / "a"])
    assert not has_marked([tmp_path / "b", tmp_path / "absent"], marks) and has_marked([tmp_path / "c"], marks)


def test_load_segmentation_dataset_of_scored_split_is_whole(tmp_path):
    for folder, offset in (("data", 0), ("other", 50)):
        for i in range(5):
            for kind in ("images", "masks"):
                (tmp_path / folder / kind).mkdir(parents=True, exist_ok=True)
                pixels = np.full((16, 16, 3), offset + 20 * i, np.uint8) if kind == "images" else np.eye(16, dtype=bool)
                Image.fromarray(pixels).save(tmp_path / folder / kind / f"{i}.png")
    trained = load_segmentation_dataset(tmp_path / "data")
    options = {"classes": ("0", "1"), "scored_split": "test", "trained_on": make_marks(trained.splits["train"].images)}
    notes: list[str] = []
    scored = load_segmentation_dataset(tmp_path / "other", **options, on_note=notes.append)
    assert len(notes) == 1 and "other has no test split" in notes[0] and notes[0].endswith("5 images")
    assert {split: len(pairs) for split, pairs in scored.splits.items()} == {"test": 5}
    again = load_segmentation_dataset(tmp_path / "data", **options, on_note=notes.append)
    assert len(notes) == 1
    assert {split: len(pairs) for split, pairs in again.splits.items()} == {"train": 4, "val": 1}
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind / f"{Path(again.splits['val'].names[0]).stem}.png").unlink()
    with pytest.raises(DataError, match=r"1 in val: .* so val would score images that were trained on"):
        load_segmentation_dataset(tmp_path / "data", **options | {"scored_split": "val"})


def test_find_images_with_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(DataError, match=r"cannot be opened .*; give an image or a folder"):
        find_images([Path("x" * 300)])
