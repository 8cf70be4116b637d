"""Masks, lists and names of classes as other programs write them: byte orders, encodings, empty lines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.masks.dataset import load_segmentation_dataset
from vpt.errors import DataError

VALUES = np.repeat(np.array([0, 1, 2], np.uint8), 8)[None].repeat(16, 0)


def write(root: Path, mask: Image.Image, suffix: str = ".png", stem: str = "") -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 24, 3), dtype=np.uint8)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(4):
        Image.fromarray(pixels[i]).save(root / "images" / f"{stem}{i}.png")
        mask.save(root / "masks" / f"{stem}{i}{suffix}")
    return root


def test_masks_of_16_bits_in_big_endian_order_are_read(tmp_path: Path) -> None:
    write(tmp_path, Image.fromarray(VALUES.astype(">u2")), ".tif")
    with Image.open(tmp_path / "masks" / "0.tif") as mask:
        assert mask.mode == "I;16B"
    dataset = load_segmentation_dataset(tmp_path, val_fraction=0)
    assert dataset.classes == ("0", "1", "2") and dataset.pixel_counts.tolist() == [4 * 128] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_utf8_are_read(tmp_path: Path) -> None:
    root = write(tmp_path, Image.fromarray(VALUES), stem=os.fsdecode(b"caf\xe9"))
    digests = {load_segmentation_dataset(root).digest for _ in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ground\nstra\u00dfe\nsky\n".encode("latin-1"), r"classes\.txt is not UTF-8 text \(byte 11\); save it as"),
        (b"ground\n\nroad\nsky\n", r"classes\.txt: line 2 is empty; name a class on each line"),
        (b"ground\nroad\n  \nsky\n", r"classes\.txt: line 3 is empty"),
    ],
)
def test_classes_file_that_misnames_classes_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    root = write(tmp_path, Image.fromarray(VALUES))
    (root / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_segmentation_dataset(root)


def test_classes_file_with_blank_lines_at_its_end_is_read(tmp_path: Path) -> None:
    root = write(tmp_path, Image.fromarray(VALUES))
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbfground\r\nroad\r\nsky\r\n \r\n\r\n")
    assert load_segmentation_dataset(root).classes == ("ground", "road", "sky")


def test_list_of_voc_in_another_encoding_is_refused(tmp_path: Path) -> None:
    write(tmp_path, Image.fromarray(VALUES))
    (tmp_path / "images").rename(tmp_path / "JPEGImages")
    (tmp_path / "masks").rename(tmp_path / "SegmentationClass")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_bytes("0\n1\nstra\u00dfe\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.txt is not UTF-8 text \(byte 8\); save it as UTF-8"):
        load_segmentation_dataset(tmp_path)


def test_labels_of_colors_for_a_model_with_named_classes_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path, Image.fromarray(np.stack([VALUES * 100] * 2 + [VALUES], -1)))
    colors = load_segmentation_dataset(root, "colors").classes
    assert load_segmentation_dataset(root, "colors", classes=colors).classes == colors
    names = ("ground", "road", "sky")
    with pytest.raises(DataError, match=r"classes of the model are ground, road, sky, .* write NAME=#rrggbb"):
        load_segmentation_dataset(root, "colors", classes=names)
    given = ",".join(f"{name}={color}" for name, color in zip(names, colors, strict=True))
    assert load_segmentation_dataset(root, given, classes=names).classes == names
