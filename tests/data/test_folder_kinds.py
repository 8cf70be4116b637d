"""Folders of classes as people bring them: other names for splits, and what is refused instead of guessed."""

from __future__ import annotations

import pytest

from vpt.data.folders.names import find_split_names, parse_split_names
from vpt.data.loading import load_dataset
from vpt.data.task_detection import detect_task
from vpt.errors import DataError, SpecError

CLASSES = ("ant", "bee", "cow")


def classes_in(*folders: str, count: int = 4) -> list[str]:
    return [f"{folder}/{name}/{i}.png" for folder in folders for name in CLASSES for i in range(count)]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "", "Testing"),
        ("TRAIN", "VALID", "TEST"),
        ("training_set", "", "test_set"),
        ("seg_train/seg_train", "", "seg_test/seg_test"),
        ("dev", "", "eval"),
        ("train", "dev", "eval"),
        ("train", "eval", "test"),
        ("1_train", "2_validation", "3_test"),
        ("train_images", "val_images", "test_images"),
        ("pets-train", "", "pets-holdout"),
        ("Trainingsdaten", "Validierung", "Testdaten"),
        ("entraînement", "validation", "test"),
        ("apprentissage/images", "", "test/images"),
        ("train2017", "val2017", "test2017"),
        ("data/TrainSet", "data/DevSet", "data/TestSet"),
        ("entrenamiento", "validación", "prueba"),
    ],
)
def test_load_dataset_of_split_folders_under_other_names_reads_them(draw, train, val, test):
    root = draw(*classes_in(*filter(None, (train, val, test))))
    assert detect_task(root) == "classification"
    dataset = load_dataset(root, val_fraction=0)
    assert dataset.classes == CLASSES
    assert [len(split) for split in dataset.splits.values()] == [12, 12 if val else 0, 12]
    assert all(name.startswith(test) for name in dataset.test.names)


@pytest.mark.parametrize("splits", [("train", "test"), ("Training", "Validation", "Testing"), ("1_train", "2_eval")])
def test_load_dataset_of_splits_inside_classes_reads_them(draw, splits):
    root = draw(*(f"{name}/{split}/{i}.png" for name in CLASSES for split in splits for i in range(3)))
    dataset = load_dataset(root, val_fraction=0)
    assert dataset.classes == CLASSES and len(dataset.train) == len(dataset.test) == 9


@pytest.mark.parametrize(
    "folders",
    [
        ("part_A", "part_B"),
        ("batch1/x", "batch2/x"),
        ("2019", "2020", "2021"),
        ("gallery", "query"),
        ("set_a", "set_b"),
        ("fold1", "fold2", "fold3", "fold4", "fold5"),
        ("original", "augmented"),
        ("site_berlin", "site_paris"),
        ("Training", "Novel"),
    ],
)
def test_load_dataset_of_unnamed_splits_is_refused_with_the_option(draw, folders):
    root = draw(*classes_in(*(folder.partition("/")[0] for folder in folders)))
    if "Training" in folders:
        assert load_dataset(root).ignored == ("Novel/",)
        return
    with pytest.raises(DataError, match=r"hold sub-folders of the same names \(ant, bee, cow\).*--split-names train="):
        load_dataset(root)
    first, second = (folder.partition("/")[0] for folder in folders[:2])
    dataset = load_dataset(root, val_fraction=0, split_names=f"train={first}, test={second}")
    assert dataset.classes == CLASSES and len(dataset.train) == len(dataset.test) == 12
    assert load_dataset(root, split_names="none").classes == tuple(sorted({f.partition("/")[0] for f in folders}))


@pytest.mark.parametrize(
    ("folders", "reason"),
    [
        (("ant_train", "ant_test", "bee_train", "bee_test"), "ant_test, ant_train seem to hold the same class"),
        (("train-ant", "train-bee", "val-ant", "val-bee"), "seem to hold the same class"),
        (("trainA", "trainB", "testA", "testB"), "testA, trainA seem to hold the same class"),
        (("Ant Training", "Ant Testing", "Bee Training"), "seem to hold the same class"),
        (("cat", "dog", "unlabeled"), "the name of unlabeled says that its images have no label"),
    ],
)
def test_load_dataset_of_names_that_are_no_classes_is_refused(draw, folders, reason):
    root = draw(*(f"{name}/{i}.png" for name in folders for i in range(4)))
    with pytest.raises(DataError, match=f"{reason}.*give --split-names none"):
        load_dataset(root)
    assert load_dataset(root, split_names="none").classes == tuple(sorted(folders))


@pytest.mark.parametrize(
    "names",
    [
        ("train", "car", "plane"),
        ("valid", "invalid"),
        ("test", "control"),
        ("fit", "unfit"),
        ("passenger train", "freight train"),
        ("with_mask", "without_mask"),
        ("mask", "no_mask"),
        ("image", "text"),
        ("labeled_bottle", "unlabeled_bottle"),
    ],
)
def test_load_dataset_of_classes_named_like_splits_or_masks_keeps_them(draw, names):
    root = draw(*(f"{name}/{i}.png" for name in names for i in range(5)))
    assert detect_task(root) == "classification"
    assert load_dataset(root).classes == tuple(sorted(names))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("train", "give each split one folder"),
        ("training=a", "did you mean 'train'"),
        ("train=a,train=b", "one folder of its own"),
        ("train=a,test=a", "one folder of its own"),
        ("", "write train=FOLDER"),
    ],
)
def test_parse_split_names_of_faulty_text_is_refused(text, match):
    with pytest.raises(SpecError, match=match):
        parse_split_names(text)


def test_load_dataset_with_absent_split_folder_is_refused(draw):
    with pytest.raises(DataError, match=r"and no fit to be a split"):
        load_dataset(draw(*classes_in("part_A")), split_names="train=part_A,test=fit")


def test_find_split_names_of_every_language_finds_them():
    assert find_split_names(["TRAIN", "Valid", "tst"]) == {"train": ["TRAIN"], "val": ["Valid"], "test": ["tst"]}
    assert find_split_names(["训练", "测试"]) == {"train": ["训练"], "test": ["测试"]}
    assert find_split_names(["pets_train", "birds_test"]) == {}
