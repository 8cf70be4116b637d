"""Folders of masks as people bring them: other names for images and masks, and what is asked about, not guessed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.loading import load_dataset
from vpt.data.masks.dataset import load_segmentation_dataset
from vpt.data.task_detection import detect_task
from vpt.errors import DataError


def write_scenes(root: Path, image: str, mask: str, count: int = 6, value: int = 1) -> Path:
    """Write noise images with a bright square, and masks of it; `{i}` in a path is the number."""
    rng = np.random.default_rng(0)
    for i in range(1, count + 1):
        pixels, ids = rng.integers(0, 200, (24, 32, 3), dtype=np.uint8), np.zeros((24, 32), np.uint8)
        pixels[4:12, 4:12], ids[4:12, 4:12] = 255, value
        for path, content in ((image, pixels), (mask, ids)):
            file = root / path.format(i=i)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(file)
    return root


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{i}.png", "labels/{i}.png"),
        ("Images/{i}.jpg", "Masks/{i}.png"),
        ("image/{i}.png", "mask/{i}.png"),
        ("train_images/{i}.png", "train_masks/{i}.png"),
        ("img/{i}.jpg", "gt/{i}.png"),
        ("JPEGImages/{i}.jpg", "SegmentationClass/{i}.png"),
        ("data/imgs/{i}.png", "data/annotations/{i}.png"),
        ("1_images/{i}.png", "2_labels/{i}.png"),
        ("images/{i}.jpg", "masks/{i}_mask.png"),
        ("images/img_{i}.png", "masks/mask_{i}.png"),
        ("images/ISIC_{i:04}.jpg", "groundtruth/ISIC_{i:04}_segmentation.png"),
        ("images/frame{i}.png", "labels/lbl{i}.png"),
        ("{i}.jpg", "{i}_mask.png"),
        ("{i}.jpg", "masks/{i}.png"),
        ("scans/{i}.jpg", "scans/{i}-gt.png"),
        ("Training/images/{i}.png", "Training/labels/{i}.png"),
        ("images/train/{i}.png", "masks/train/{i}.png"),
        ("train/a/images/{i}.png", "train/a/masks/{i}.png"),
        ("Bilder/{i}.png", "Masken/{i}.png"),
        ("images/city/{i}.png", "labels/city/{i}.png"),
        ("images/21_{i}_training.png", "1st_manual/21_{i}_manual1.png"),
        ("imgs/{i}.png", "labels/{i}.png"),
        ("{i}.png", "{i}.label.png"),
        ("{i}.jpg", "{i} seg.png"),
        ("images/a{i}.jpg", "masks/a{i}.jpg.png"),
        ("images/{i:03}.png", "masks/{i}.png"),
        ("imagesTr/case_{i}_0000.png", "labelsTr/case_{i}.png"),
        ("{i}_sat.jpg", "{i}_mask.png"),
        ("train/{i}_image.png", "train/{i}_label.png"),
    ],
)
def test_masks_under_other_names_are_segmented(tmp_path, image, mask):
    root = write_scenes(tmp_path, image, mask)
    assert detect_task(root) == "segmentation"
    dataset = load_segmentation_dataset(root, val_fraction=0)
    assert dataset.classes == ("0", "1") and {split: len(p) for split, p in dataset.splits.items()} == {"train": 6}
    pairs = dataset.splits["train"]
    for photo, labels in zip(pairs.images, pairs.masks, strict=True):
        numbers = re.findall(r"\d+", photo.stem)
        found = re.findall(r"\d+", labels.stem)
        assert found and all(int(own) == int(other) for own, other in zip(numbers, found, strict=False))


def test_masks_of_three_splits_under_other_names_are_kept_apart(tmp_path):
    for split, count in (("Train", 5), ("Valid", 2), ("Testing", 3)):
        write_scenes(tmp_path, split + "/pics/{i}.jpg", split + "/labels/{i}.png", count)
    dataset = load_segmentation_dataset(tmp_path)
    assert {split: len(pairs) for split, pairs in dataset.splits.items()} == {"train": 5, "val": 2, "test": 3}


@pytest.mark.parametrize(
    ("image", "mask", "options"),
    [
        ("a/{i}.jpg", "b/{i}.png", {"images": "a", "masks": "b"}),
        ("left/{i}.jpg", "right/{i}.png", {"images": "left", "masks": "right"}),
        ("train/pix/{i}.png", "train/areas/{i}.png", {"images": "pix", "masks": "areas"}),
        ("x/{i}.png", "x/{i}_a.png", {"mask_suffix": "_a"}),
        ("photos/{i}.png", "areas/{i}-x.png", {"masks": "areas", "mask_suffix": "-x"}),
        ("part_A/images/{i}.png", "part_A/masks/{i}.png", {"split_names": "train=part_A"}),
        ("a/b/{i}.png", "a/c/{i}.png", {"images": "a/b", "masks": "a/c"}),
    ],
)
def test_masks_under_unknown_names_are_found_by_option(tmp_path, image, mask, options):
    root = write_scenes(tmp_path, image, mask)
    dataset = load_segmentation_dataset(root, val_fraction=0, **options)
    assert {split: len(pairs) for split, pairs in dataset.splits.items()} == {"train": 6}
    assert all("areas" in path.as_posix() for path in dataset.splits["train"].masks if options.get("masks") == "areas")


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a/{i}.jpg", "b/{i}.png"),
        ("left/{i}.png", "right/{i}.png"),
        ("train/pix/{i}.png", "train/areas/{i}.png"),
        ("photos/{i}.jpg", "areas/{i}.jpg"),
        ("2024/rgb_crop/{i}.png", "2024/poly/{i}.png"),
        ("img/{i}.jpg", "lab/{i}_lab.png"),
        ("photo/{i}.png", "segmentation_maps/{i}.png"),
        ("images/{i}.jpg", "masks/all/{i}.png"),
    ],
)
def test_folders_of_the_same_stems_with_few_colors_are_refused(tmp_path, image, mask):
    root = write_scenes(tmp_path, image, mask, value=255)
    with pytest.raises(DataError, match="seems to hold the masks of ") as caught:
        detect_task(root)
    images, masks = re.search(r"--images (\S+) --masks ([^\s,]+)", str(caught.value)).groups()
    dataset = load_segmentation_dataset(root, "0,255", images=images, masks=masks, val_fraction=0)
    assert len(dataset.splits["train"]) == 6


def test_masks_whose_names_match_no_image_are_refused(tmp_path):
    root = write_scenes(tmp_path / "other", "images/a{i}b.png", "masks/{i}0c{i}.png")
    with pytest.raises(DataError, match="several for an image, or of images whose names"):
        detect_task(root)
    root = write_scenes(tmp_path / "changes", "A/{i}.png", "label/{i}.png")
    write_scenes(root, "B/{i}.png", "label/{i}.png")
    with pytest.raises(DataError, match="label seems to hold the masks of A; give --images A --masks label"):
        detect_task(root)


def test_masks_in_a_folder_for_each_image_are_asked_about(tmp_path):
    root = write_scenes(tmp_path, "scan{i}/image.png", "scan{i}/mask.png")
    with pytest.raises(DataError, match=r"--task classification.*--task segmentation"):
        detect_task(root)
    assert len(load_segmentation_dataset(root, val_fraction=0).splits["train"]) == 6


def test_masks_beside_images_in_class_folders_are_asked_about(tmp_path):
    for name in ("benign", "malignant"):
        write_scenes(tmp_path, name + "/{i}.png", name + "/{i}_mask.png", value=255)
    with pytest.raises(DataError, match=r"--task classification.*--task segmentation"):
        detect_task(tmp_path)
    dataset = load_dataset(tmp_path)
    assert sum(len(split) for split in dataset.splits.values()) == 12 and len(dataset.ignored) == 12


def test_photographs_named_like_masks_are_images(draw):
    root = draw(*(f"{name}/{i}{end}.png" for name in ("a", "b") for i in range(4) for end in ("", "_mask")))
    rng = np.random.default_rng(0)
    for path in root.rglob("*.png"):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    assert detect_task(root) == "classification"
    assert sum(len(split) for split in load_dataset(root).splits.values()) == 16


def test_masks_in_two_folders_are_asked_about(tmp_path):
    write_scenes(tmp_path, "images/{i}.png", "mask/{i}.png")
    shutil.copytree(tmp_path / "mask", tmp_path / "1st_manual")
    with pytest.raises(DataError, match=r"in 1st_manual, mask; choose the folder with --masks"):
        load_segmentation_dataset(tmp_path)
    dataset = load_segmentation_dataset(tmp_path, masks="1st_manual", val_fraction=0)
    assert {path.parent.name for path in dataset.splits["train"].masks} == {"1st_manual"}


@pytest.mark.parametrize(
    "copy", ["._{name}", ".ipynb_checkpoints/{name}", "__MACOSX/{name}", "@eaDir/{name}", ".trash/x/{name}"]
)
def test_copies_that_programs_leave_are_passed_over(tmp_path, copy):
    root = write_scenes(tmp_path, "images/{i}.png", "masks/{i}.png")
    for folder in ("images", "masks"):
        hidden = root / folder / copy.format(name="1.png")
        hidden.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(b"no image")
    assert len(load_segmentation_dataset(root, val_fraction=0).splits["train"]) == 6
