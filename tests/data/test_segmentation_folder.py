"""Folders of images and masks: layouts, mask ids, faults, and joint augmentation."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.segmentation import write_split
from vpt.data.masks.augmentation import JointAugmentation
from vpt.data.masks.dataset import load_segmentation_dataset
from vpt.data.masks.files import load_pair
from vpt.data.masks.schemes import IGNORE_INDEX, LABEL_SCHEMES, palette
from vpt.errors import DataError, SpecError


def test_load_segmentation_dataset_with_faults_names_all(tmp_path):
    write_split(tmp_path / "images", tmp_path / "masks", 5, first_id=0)
    (tmp_path / "masks/scene_0.png").unlink()
    (tmp_path / "images/scene_1.jpg").unlink()
    Image.new("L", (30, 20)).save(tmp_path / "masks/scene_2.png")
    Image.new("L", (70, 52), 9).save(tmp_path / "masks/scene_3.png")
    Image.new("RGB", (70, 52), "red").save(tmp_path / "masks/scene_4.png")
    with pytest.raises(DataError) as caught:
        load_segmentation_dataset(tmp_path, classes=("ground", "square"))
    text = str(caught.value)
    for part in (
        "scene_0.jpg: an image without a mask",
        "scene_1.png: a mask without an image",
        "70 x 52 px, its mask 30 x 20",
        "ids 9 of the mask",
        "mode RGB",
    ):
        assert part in text, text


@pytest.mark.parametrize(
    ("images", "masks", "labels"),
    [
        ("train", "trainannot", "camvid"),
        ("images/train", "masks/train", "plain"),
        ("train/images", "train/masks", "plain"),
    ],
)
def test_load_segmentation_dataset_of_each_layout_finds_splits(tmp_path, images, masks, labels):
    write_split(tmp_path / images, tmp_path / masks, 3, ".png", first_id=0)
    dataset = load_segmentation_dataset(tmp_path, val_fraction=0.34)
    assert {part: len(pairs) for part, pairs in dataset.splits.items()} == {"train": 2, "val": 1}
    assert dataset.classes == (LABEL_SCHEMES[labels].classes or ("0", "1"))
    assert dataset.pixel_counts.sum() == 2 * 49 * 70


def test_load_segmentation_dataset_of_cityscapes_maps_ids(tmp_path):
    write_split(tmp_path / "leftImg8bit/train/bonn", tmp_path / "gtFine/train/bonn", 1, ".png", first_id=7)
    (tmp_path / "leftImg8bit/train/bonn/scene_0.png").rename(tmp_path / "leftImg8bit/train/bonn/a_leftImg8bit.png")
    (tmp_path / "gtFine/train/bonn/scene_0.png").rename(tmp_path / "gtFine/train/bonn/a_gtFine_labelIds.png")
    dataset = load_segmentation_dataset(tmp_path, val_fraction=0)
    _, mask = load_pair(dataset.splits["train"], 0, dataset.lookup_table)
    assert set(np.unique(mask)) == {0, 1, IGNORE_INDEX} and dataset.classes[:2] == ("road", "sidewalk")


def test_label_schemes_of_each_dataset_have_its_classes():
    assert {name: len(row.classes) for name, row in LABEL_SCHEMES.items()} == {
        "ade20k": 150, "cityscapes": 19, "voc": 21, "camvid": 11, "plain": 0,
    }  # fmt: skip
    assert all(len(set(row.classes)) == len(row.classes) for row in LABEL_SCHEMES.values())
    assert len(np.unique(palette(150), axis=0)) == 150
    ade20k = LABEL_SCHEMES["ade20k"].lookup_table(150)
    assert (ade20k[0], ade20k[1], ade20k[150], ade20k[151]) == (IGNORE_INDEX, 0, 149, -1)


def test_joint_augmentation_of_image_and_mask_keeps_them_aligned():
    mask = torch.zeros(40, 60, dtype=torch.uint8)
    mask[10:30, 20:50] = 7
    image = mask.repeat(3, 1, 1) * 30
    for seed in range(20):
        found, cut = JointAugmentation(color_jitter=0.0)(image, mask, 32, np.random.default_rng(seed))
        assert found.shape == (3, 32, 32) and set(cut.unique().tolist()) <= {0, 7, IGNORE_INDEX}
        known = cut != IGNORE_INDEX
        wrong = ((found[0] > 105) != (cut == 7)) & known
        assert wrong.float().mean() < 0.06, seed


def test_joint_augmentation_with_any_number_of_threads_is_the_same():
    threads = torch.get_num_threads()
    image = torch.randint(256, (3, 240, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            pairs = [JointAugmentation()(image, image[0] % 3, 224, np.random.default_rng(seed)) for seed in range(3)]
            found.append(torch.stack([crop for crop, _ in pairs]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])


def test_joint_augmentation_with_vertical_flip_exchanges_top_and_bottom_of_both():
    mask = torch.zeros(32, 32, dtype=torch.uint8)
    mask[:16] = 1
    image, flip = mask.repeat(3, 1, 1) * 200, JointAugmentation(1.0, 1.0, False, 0.0, 1.0, vertical_flip=True)
    tops = set()
    for seed in range(20):
        found, cut = flip(image, mask, 32, np.random.default_rng(seed))
        assert torch.equal(found[0] > 100, cut == 1) and cut.sum() == 16 * 32
        tops.add(int(cut[0, 0]))
    assert tops == {0, 1}


def write_scene(root: Path, mask: np.ndarray, images: str = "images", masks: str = "masks") -> Path:
    for i, (folder, pixels) in enumerate(((images, np.zeros((*mask.shape, 3), np.uint8)), (masks, mask)) * 2):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / folder / f"{i // 2}.png")
    return root


def test_load_segmentation_dataset_with_ignore_index_ignores_that_class(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12], mask[12:] = 1, 2
    dataset = load_segmentation_dataset(write_scene(tmp_path, mask), ignore_index=0)
    assert dataset.lookup_table[0] == IGNORE_INDEX and dataset.lookup_table[1] == 1
    assert dataset.pixel_counts.tolist() == [0, 128, 64]
    assert set(np.unique(load_pair(dataset.splits["train"], 0, dataset.lookup_table)[1])) == {1, 2, IGNORE_INDEX}
    for wrong in (-1, 70_000):
        with pytest.raises(SpecError, match="0 to 65535"):
            load_segmentation_dataset(tmp_path, ignore_index=wrong)


def test_load_segmentation_dataset_of_more_than_255_classes_is_refused(tmp_path):
    mask = np.zeros((16, 16), np.uint16)
    mask[4:12], mask[12:] = 1, 300
    with pytest.raises(DataError, match=r"make 301; the maximum is 255; --labels 0,1,300 "):
        load_segmentation_dataset(write_scene(tmp_path, mask))
    assert load_segmentation_dataset(tmp_path, ignore_index=300).classes == ("0", "1")


def test_load_segmentation_dataset_with_split_without_masks_is_refused(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    write_scene(tmp_path, mask, "images/train", "masks/train")
    mask[4:] = 1
    write_scene(tmp_path, mask, "images/train", "masks/train")
    (tmp_path / "images/val").mkdir()
    shutil.copy(tmp_path / "images/train/0.png", tmp_path / "images/val")
    with pytest.raises(DataError, match=r"images/val: there is no mask for its 1 image"):
        load_segmentation_dataset(tmp_path)
    shutil.rmtree(tmp_path / "images/val")
    with pytest.raises(SpecError, match=r"val_fraction is 5"):
        load_segmentation_dataset(tmp_path, val_fraction=5)


def test_class_file_with_duplicate_names_is_refused(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:] = 1
    (write_scene(tmp_path, mask) / "classes.txt").write_text("sky\nroad\n", encoding="utf-8-sig")
    assert load_segmentation_dataset(tmp_path).classes == ("sky", "road")
    (tmp_path / "classes.txt").write_text("sky\nsky\n")
    with pytest.raises(DataError, match="names sky more than once"):
        load_segmentation_dataset(tmp_path)


def test_load_segmentation_dataset_of_postscript_mask_is_refused(tmp_path):
    """Pillow would start another program for PostScript."""
    mask = np.zeros((16, 16), np.uint8)
    write_scene(tmp_path, mask)
    Image.fromarray(mask).save(tmp_path / "masks/0.png", "EPS")
    with pytest.raises(DataError, match=r"0: a mask that cannot be read"):
        load_segmentation_dataset(tmp_path)


def test_joint_augmentation_draws_crops_without_labels_again():
    mask = torch.full((64, 64), IGNORE_INDEX, dtype=torch.uint8)
    mask[:24, :24] = 1
    for augmentation in (JointAugmentation(1.9, 2.0), JointAugmentation(2.0, 2.0, max_class_fraction=1.0)):
        crops = [augmentation(mask.repeat(3, 1, 1), mask, 32, np.random.default_rng(seed))[1] for seed in range(40)]
        assert sum(bool((crop == 1).any()) for crop in crops) >= 35


def test_classes_file_names_listed_ids_in_their_order(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:] = 255
    (write_scene(tmp_path, mask) / "classes.txt").write_text("road\nground\n")
    listed = load_segmentation_dataset(tmp_path, "255,0")
    assert listed.classes == ("road", "ground") and listed.lookup_table[[0, 255]].tolist() == [1, 0]
    for labels, names in (("a=0,b=255", ("a", "b")), ("0,255,7", ("0", "255", "7"))):
        dataset = load_segmentation_dataset(tmp_path, labels)
        assert dataset.classes == names
        assert any(note.startswith("classes.txt is not used: ") and labels in note for note in dataset.notes)


def test_classes_file_with_many_unused_classes_is_read(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12], mask[12:] = 1, 2
    names = tuple(f"c{k}" for k in range(12))
    (write_scene(tmp_path, mask) / "classes.txt").write_text("\n".join(names))
    dataset = load_segmentation_dataset(tmp_path)
    assert dataset.classes == names and any("train has no pixel of 9 classes" in note for note in dataset.notes)


def test_masks_of_another_format_are_named(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    write_scene(tmp_path, mask)
    for path in (tmp_path / "masks").iterdir():
        np.save(path.with_suffix(".npy"), mask)
        path.unlink()
    for options in ({}, {"masks": "masks"}):
        with pytest.raises(
            DataError, match=r"masks/\d\.npy is a NumPy array; write its images, and masks of one number"
        ):
            load_segmentation_dataset(tmp_path, **options)


def test_mask_suffix_that_is_empty_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"mask_suffix is empty, .*; move the masks to a folder of their own"):
        load_segmentation_dataset(tmp_path, mask_suffix="")


def test_masks_read_otherwise_than_their_layout_are_noted(tmp_path):
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16) % 19
    root = write_scene(tmp_path, mask)
    dataset = load_segmentation_dataset(root, labels="cityscapes")
    assert any("read as cityscapes; by the layout of" in note and "they are plain" in note for note in dataset.notes)
    assert not any("by the layout" in note for note in load_segmentation_dataset(root, labels="plain").notes)
