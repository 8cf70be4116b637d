"""Class folders, with and without train, val and test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vpt.data.folders.class_folders import read_image_folder
from vpt.data.loading import load_dataset
from vpt.data.synthetic.tasks import TASKS
from vpt.errors import DataError, SpecError


def files(*folders: str, count: int = 5) -> list[str]:
    return [f"{folder}/{i}.png" for folder in folders for i in range(count)]


def test_load_dataset_of_flat_folder_splits_each_class(draw):
    root = draw(*files("dog", "cat", count=10))
    dataset = load_dataset(root)
    assert dataset.classes == ("cat", "dog")
    assert [split.class_counts(2).tolist() for split in dataset.splits.values()] == [[6, 6], [2, 2], [2, 2]]
    assert "seed 0" in dataset.source and not dataset.notes and not dataset.ignored
    names = [set(split.names) for split in dataset.splits.values()]
    assert len(set.union(*names)) == 20


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_load_dataset_of_given_splits_keeps_them(draw, val):
    root = draw(*files("train/a", "train/b"), *files(f"{val}/a", f"{val}/b", "test/a", "test/b", count=2))
    dataset = load_dataset(root)
    assert [len(split) for split in dataset.splits.values()] == [10, 4, 4]
    assert len(dataset.trainval()) == 14
    assert dataset.test.names[0] == "test/a/0.png"
    assert dataset.test.labels.dtype == np.int64


def test_load_dataset_without_val_splits_train(draw):
    root = draw(*files("train/a", "train/b", "test/a", "test/b"))
    assert [len(split) for split in load_dataset(root).splits.values()] == [8, 2, 10]
    assert [len(split) for split in load_dataset(root, val_fraction=0).splits.values()] == [10, 0, 10]


def test_read_image_folder_of_nested_unicode_names_finds_images(draw):
    root = draw("chat noir/été/a.PNG", "chat noir/été/ü b.JPeG", "chat noir/a.png", "犬/a.webp", "犬/b.Tif")
    dataset = read_image_folder(root)
    assert dataset.classes == ("chat noir", "犬")
    assert dataset.train.class_counts(2).tolist() == [3, 2]


def test_read_image_folder_of_two_unicode_forms_gives_one_class(draw):
    root = draw("train/caf\u00e9/1.png", "train/b/1.png", "test/cafe\u0301/1.png")
    assert read_image_folder(root).test.labels.tolist() == [1]


def test_read_image_folder_with_other_files_lists_all_but_hidden_ones(draw):
    root = draw("a/1.png", "b/1.png", "lost.png", "a/.hidden.png", ".cache/1.png", "__MACOSX/a/1.png")
    for name in ("README.md", "a/list.csv", "b/Thumbs.db", "b/.DS_Store", "b/photo.nef"):
        (root / name).touch()
    dataset = read_image_folder(root)
    assert dataset.ignored == ("README.md", "a/list.csv", "b/photo.nef", "lost.png")
    assert len(dataset.train) == 2


def test_read_image_folder_with_folders_beside_train_lists_them(draw):
    assert read_image_folder(draw("train/a/1.png", "train/b/1.png", "raw/x/1.png")).ignored == ("raw/",)


def test_read_image_folder_of_class_named_train_reads_it(draw):
    assert read_image_folder(draw("car/1.png", "plane/1.png", "train/1.png")).classes == ("car", "plane", "train")


def test_read_image_folder_with_link_loop_terminates(draw):
    root = draw("a/1.png", "b/1.png")
    (root / "a" / "again").symlink_to(root / "a", target_is_directory=True)
    (root / "b" / "up").symlink_to(root, target_is_directory=True)
    dataset = read_image_folder(root)
    assert len(dataset.train.images) >= 2
    assert any("again" in name for name in dataset.ignored)


def test_read_image_folder_with_linked_folder_follows_it(draw, tmp_path_factory):
    root = draw("a/1.png", "b/1.png")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (root / "a" / "1.png").rename(elsewhere / "2.png")
    (root / "a" / "more").symlink_to(elsewhere, target_is_directory=True)
    assert read_image_folder(root).train.names == ("a/more/2.png", "b/1.png")


def test_load_dataset_with_class_absent_from_test_adds_a_note(draw):
    dataset = load_dataset(draw(*files("train/a", "train/b", "test/a")))
    assert dataset.notes == ("test has no image of 1 class: 'b'; the test accuracy does not cover it",)


def test_load_dataset_with_equal_files_across_splits_adds_a_note(draw):
    root = draw(*files("train/a", "train/b", "test/a", "test/b"), color=(1, 2, 3))
    contradiction, note = load_dataset(root, val_fraction=0).notes
    assert contradiction.startswith("1 file with the same bytes in two classes, of which one is wrong: ")
    assert note.startswith("10 files of test with the same bytes as a file of train") and "and 5 more" in note
    assert len(load_dataset(root).notes) == 4


def test_load_dataset_with_equal_files_inside_a_split_adds_no_note(draw):
    draw("train/a/1.png", "train/a/x/1.png", color=(9, 9, 9))
    assert not load_dataset(draw("train/b/1.png", "test/a/1.png", "test/b/1.png"), val_fraction=0).notes


def refusal(source: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(source)
    return str(caught.value)


def test_load_dataset_of_absent_path_is_refused(tmp_path):
    text = refusal(tmp_path / "nowhere")
    assert "neither a folder nor a built-in task" in text and "one folder of images for each class" in text


def test_load_dataset_of_misspelled_task_suggests_the_nearest():
    task = sorted(TASKS)[0]
    assert f"did you mean {task!r}?" in refusal(task[:-1] + "_")


@pytest.mark.parametrize("source", ["", "x" * 5000, "nul\0byte"])
def test_load_dataset_of_invalid_path_is_refused(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(source)


def test_load_dataset_of_a_file_is_refused(tmp_path):
    archive = tmp_path / "data.zip"
    archive.touch()
    assert "is a file, not a folder" in refusal(archive)


def test_load_dataset_of_empty_folder_is_refused(tmp_path):
    assert "holds no class folders and no images" in refusal(tmp_path)


def test_load_dataset_without_class_folders_is_refused(draw):
    assert "holds 2 images (1.png, 2.png) but no class folders" in refusal(draw("1.png", "2.png"))
    assert "train holds 1 image (1.png) but no class folders" in refusal(draw("train/1.png", "test/a/1.png"))


def test_load_dataset_with_empty_class_folders_is_refused(draw):
    root = draw("a/1.png", "b/1.png")
    (root / "c").mkdir()
    (root / "d" / "deep.jpg").mkdir(parents=True)
    assert "2 class folders without any image:\n  'c'\n  'd'\n" in refusal(root)


def test_load_dataset_with_empty_test_folder_is_refused(draw):
    root = draw("train/a/1.png", "train/b/1.png")
    (root / "test").mkdir()
    assert "test holds no class folders and no images" in refusal(root)


def test_load_dataset_of_one_class_is_refused(draw):
    assert "only one class, 'a' (2 images)" in refusal(draw("a/1.png", "a/2.png"))


@pytest.mark.parametrize("split_name", ["val", "test"])
def test_load_dataset_with_class_absent_from_train_is_refused(draw, split_name):
    root = draw(
        *files("train/cat", "train/dog"),
        *files(f"{split_name}/Cat", f"{split_name}/emu", count=2),
        f"{split_name}/dog/1.png",
    )
    text = refusal(root)
    assert f"2 classes of {split_name} without any image in train" in text
    assert "'Cat' (2 images); train has 'cat'\n  'emu' (2 images)\n" in text


def test_load_dataset_without_train_is_refused(draw):
    assert "holds test, val but no train" in refusal(draw("val/a/1.png", "test/a/1.png"))


def test_load_dataset_with_two_val_folders_is_refused(draw):
    assert "holds val, valid; keep one" in refusal(draw("train/a/1.png", "val/a/1.png", "valid/a/1.png"))


def test_load_dataset_of_folder_of_datasets_is_refused(draw):
    assert "contains whole datasets" in refusal(draw("one/train/a/1.png", "two/train/a/1.png"))


def test_load_dataset_of_unreadable_folder_is_refused(draw, make_unreadable):
    root = draw("a/1.png", "b/1.png")
    make_unreadable(root / "a")
    try:
        assert "permissions" in refusal(root)
    finally:
        (root / "a").chmod(0o700)


@pytest.mark.parametrize("fractions", [(-0.1, 0.2), (0.2, 1.0), (0.5, 0.5)])
def test_load_dataset_with_invalid_fractions_is_refused(draw, fractions):
    root = draw(*files("a", "b"))
    with pytest.raises(SpecError, match="fraction"):
        load_dataset(root, val_fraction=fractions[0], test_fraction=fractions[1])


def test_load_dataset_of_built_in_task_returns_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = sorted(TASKS)[0]
    dataset = load_dataset(task, seed=3)
    assert dataset.name == task and dataset.classes == tuple(TASKS[task].classes)
    assert all(len(split) for split in dataset.splits.values())


def test_load_dataset_of_folder_named_like_a_task_reads_the_folder(draw, monkeypatch):
    task = sorted(TASKS)[0]
    monkeypatch.chdir(draw(*files(f"{task}/a", f"{task}/b")))
    dataset = load_dataset(task)
    assert dataset.classes == ("a", "b")
    assert "not the built-in task" in dataset.notes[0]
