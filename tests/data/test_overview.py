"""The screen about a data set before training."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vpt.data.overview import check_folder
from vpt.errors import DataError


def test_check_folder_of_classes_counts_them(draw):
    files = [f"train/{name}/{i}.png" for name, count in (("ant", 30), ("bee", 3)) for i in range(count)]
    root = draw(*files, "val/ant/1.png", "test/bee/1.png", "train/ant/notes.bmp")
    lines = check_folder(root).lines()
    assert lines[0].endswith("classification, 2 classes, 36 images (train 34, val 1, test 1)")
    assert lines[1:4] == ["  ant  train 31  val 1  test 0", "  bee  train 3  val 0  test 1", "sizes: 10 x 12 px"]
    assert "odd: fewer than 5 training images of bee" in lines
    assert "odd: the largest class has 31 training images, the smallest 3" in lines


def test_check_folder_of_masks_counts_images_of_each_class(tmp_path):
    for i in range(4):
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
            pixels = np.zeros((16, 20 + i, 3), np.uint8) if kind == "images" else np.full((16, 20 + i), 0, np.uint8)
            pixels[:4, :4] = 1 if i < 3 else 0
            Image.fromarray(pixels).save(tmp_path / kind / f"{i}.png")
    lines = check_folder(tmp_path).lines()
    assert "segmentation, 2 classes, 4 images" in lines[0]
    assert sum(int(word) for word in lines[2].split()[1:] if word.isdigit()) == 3
    assert lines[3] == "sizes: 20 x 16 to 23 x 16 px, median 22 x 16"


def test_check_folder_with_unreadable_image_names_it(draw):
    root = draw(*(f"{name}/{i}.png" for name in "ab" for i in range(4)))
    (root / "a/1.png").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"a/1.png: not an image but a web page"):
        check_folder(root)
