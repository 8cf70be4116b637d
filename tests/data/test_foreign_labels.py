"""Folders of other programs: labels that are not read are named, and nothing is trained on what they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vpt.data.loading import load_dataset
from vpt.data.overview import check_folder
from vpt.data.tables.foreign_labels import describe_foreign_labels, find_sidecars
from vpt.data.task_detection import detect_task
from vpt.errors import DataError

COCO = json.dumps({"info": {}, "images": [{"id": 0}], "annotations": [{"image_id": 0}], "categories": []})
LABELME = json.dumps({"version": "5.0", "flags": {}, "shapes": [{"label": "cat"}], "imagePath": "0.jpg"})
VIA = json.dumps({"0.jpg123": {"filename": "0.jpg", "regions": []}})
YOLO, VOC = "0 0.5 0.5 0.2 0.2\n1 0.1 0.2 0.3 0.4\n", "<annotation>\n<object/></annotation>"


def draw(root: Path, *names: str) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(path)
    return root


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def names_in(*folders: str, count: int = 6) -> list[str]:
    return [f"{folder}/{i}.jpg" for folder in folders for i in range(count)]


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        check_folder(root, detect_task(root))
    return str(caught.value)


@pytest.mark.parametrize(
    ("images", "file", "text", "kind"),
    [
        (names_in("images"), "annotations/instances_default.json", COCO, "annotations of COCO"),
        (names_in("train", "valid", "test"), "train/_annotations.coco.json", "{}", "annotations of COCO"),
        (names_in("images"), "annotations.json", COCO, "annotations of COCO"),
        (names_in("images"), "annotations.xml", "<?xml?><annotations><image/></annotations>", "annotations of CVAT"),
        (names_in("images"), "labels/0.txt", YOLO, "boxes of YOLO"),
        (names_in("train/images", "valid/images"), "train/labels/0.txt", YOLO, "boxes of YOLO"),
        (names_in("JPEGImages"), "Annotations/0.xml", VOC, "an annotation of PASCAL VOC"),
        (names_in("."), "via_project.json", VIA, "annotations of VIA"),
        (names_in("."), "labels.json", '{"0.jpg": "cat"}', "labels in JSON"),
        (names_in("."), "labels.xlsx", "PK", "a spreadsheet"),
    ],
)
def test_labels_of_other_programs_are_named(tmp_path: Path, images: list[str], file: str, text: str, kind: str) -> None:
    write(draw(tmp_path, *images), **{file: text})
    message = refusal(tmp_path)
    assert f"{file} holds {kind}, which is not read; write a table of the images" in message
    assert "delete" not in message


@pytest.mark.parametrize(
    ("suffix", "text", "kind"),
    [
        (".json", LABELME, "annotations of LabelMe"),
        (".xml", VOC, "an annotation of PASCAL VOC"),
        (".txt", YOLO, "boxes of YOLO"),
    ],
)
@pytest.mark.parametrize("folders", [("siteA", "siteB"), ("."), ("2023", "2024", "2025")])
def test_annotations_beside_images_are_no_classes(
    tmp_path: Path, suffix: str, text: str, kind: str, folders: tuple[str, ...]
) -> None:
    images = names_in(*folders)
    write(draw(tmp_path, *images), **{name.replace(".jpg", suffix): text for name in images})
    message = refusal(tmp_path)
    assert f"holds {kind} beside its images" in message and "--task classification" in message


def test_files_beside_images_that_are_no_annotations_are_passed_over(tmp_path: Path) -> None:
    images = names_in("a", "b")
    texts = {name.replace(".jpg", ".txt"): "a photograph of a cat" for name in images}
    texts |= {name.replace(".jpg", ".json"): '{"camera": "x", "iso": 100}' for name in images}
    write(draw(tmp_path, *images), **texts)
    assert not find_sidecars([tmp_path / name for name in images]) and not describe_foreign_labels(tmp_path)
    assert detect_task(tmp_path) == "classification" and load_dataset(tmp_path).classes == ("a", "b")


def test_annotations_beside_a_few_images_are_passed_over(tmp_path: Path) -> None:
    write(draw(tmp_path, *names_in("a", "b", count=12)), **{"a/0.json": LABELME})
    assert detect_task(tmp_path) == "classification"


def write_masks(root: Path, *folders: str, count: int = 6) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            mask = np.zeros((24, 32), np.uint8)
            mask[i : i + 8] = 255
            Image.fromarray(mask).save(root / folder / f"{i}.png")


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", ("masks/cat", "masks/dog")),
        ("imgs", ("labels/road", "labels/sky", "labels/tree")),
        ("train/images", ("train/masks/a", "train/masks/b")),
        ("photos", ("annotations/person_1", "annotations/person_2")),
        ("data/images", ("data/ground_truth/left", "data/ground_truth/right")),
        ("input", ("target/0", "target/1")),
    ],
)
def test_masks_of_single_classes_are_no_classes(tmp_path: Path, images: str, masks: tuple[str, ...]) -> None:
    write_masks(draw(tmp_path, *names_in(images)), *masks)
    with pytest.raises(
        DataError, match="seem to hold masks of single classes or objects, several for an image"
    ) as caught:
        detect_task(tmp_path)
    assert all(folder in str(caught.value) for folder in masks)


@pytest.mark.parametrize(
    "folders", [("photos/mask", "photos/nomask"), ("with_mask", "without_mask"), ("images/label", "images/blank")]
)
def test_photographs_in_folders_called_masks_are_classes(tmp_path: Path, folders: tuple[str, ...]) -> None:
    assert detect_task(draw(tmp_path, *names_in(*folders))) == "classification"


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("clip.mp4", "a video"),
        ("IMG_1.MOV", "a video"),
        ("scan.pdf", "a PDF document"),
        ("images.zip", "an archive; extract it first"),
        ("photos.tar.gz", "an archive; extract it first"),
        ("old.rar", "an archive; extract it first"),
    ],
)
@pytest.mark.parametrize("others", [(), ("a/0.jpg", "b/0.jpg")])
def test_class_folder_without_images_names_what_it_holds(
    tmp_path: Path, file: str, kind: str, others: tuple[str, ...]
) -> None:
    write(draw(tmp_path, *others), **{f"c/{file}": "x", **({} if others else {f"d/{file}": "x"})})
    with pytest.raises(DataError, match=f"c/{file} is {kind}"):
        load_dataset(tmp_path)


def test_submission_of_a_competition_is_no_table_of_labels(tmp_path: Path) -> None:
    draw(tmp_path, *(f"train/a{i}.jpg" for i in range(12)), "test/t0.jpg", "test/t1.jpg")
    rows = "".join(f"a{i},{'xyz'[i % 3]}\n" for i in range(12))
    write(tmp_path, **{"labels.csv": "id,breed\n" + rows})
    for name in ("sample_submission.csv", "sampleSubmission.csv", "submission.csv"):
        write(tmp_path, **{name: "id,x,y,z\nt0,0.3,0.3,0.4\nt1,0.2,0.3,0.5\n"})
    dataset = load_dataset(tmp_path, val_fraction=0, test_fraction=0)
    assert dataset.classes == ("x", "y", "z") and len(dataset.train) == 12
    write(tmp_path, **{"train.csv": "image_id,label\n" + "".join(f"a{i}.jpg,{i % 2}\n" for i in range(12))})
    (tmp_path / "labels.csv").unlink()
    write(tmp_path, **{"test.csv": "image_id\nt0.jpg\nt1.jpg\n"})
    assert load_dataset(tmp_path, val_fraction=0, test_fraction=0).classes == ("0", "1")


def test_test_images_without_class_folders_name_the_option_that_leaves_them_out(tmp_path: Path) -> None:
    root = draw(tmp_path, *names_in("training/a", "training/b"), "test/1.jpg", "test/2.jpg")
    with pytest.raises(DataError, match=r"test holds 2 images but no class folders.*--split-names train=training"):
        load_dataset(root)
    dataset = load_dataset(root, split_names="train=training")
    assert dataset.classes == ("a", "b") and len(dataset.test) == 2  # split off


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (("Cat", "cat", "dog"), "'Cat' and 'cat'"),
        (("a b", "a  b", "c"), "'a  b' and 'a b'"),
        (("x", "x ", "y"), "'x' and 'x '"),
    ],
)
def test_classes_that_differ_in_case_or_spaces_are_noted(tmp_path: Path, names: Any, alike: str) -> None:
    root = draw(tmp_path, *names_in(*names))
    if len(list(root.iterdir())) < len(names):
        pytest.skip("the file system does not tell these names apart")
    assert any(f"classes differ in case or spaces alone: {alike}; if" in note for note in load_dataset(root).notes)


def test_files_of_the_same_bytes_in_two_classes_are_noted(tmp_path: Path) -> None:
    root = draw(tmp_path, *names_in("a", "b"))
    for i in range(2):
        (root / "b" / f"copy{i}.jpg").write_bytes((root / "a" / f"{i}.jpg").read_bytes())
    notes = load_dataset(root, val_fraction=0, test_fraction=0).notes
    text = "2 files with the same bytes in two classes, of which one is wrong: a/0.jpg = b/copy0.jpg, a/1.jpg = b/copy1"
    assert any(note.startswith(text) for note in notes)
    assert not load_dataset(draw(tmp_path / "other", *names_in("a", "b")), val_fraction=0, test_fraction=0).notes
