"""The screen about a data set before training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from helpers.command_line import exit_code, vpt
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


def test_check_folder_with_a_small_share_of_the_range_names_the_option(tmp_path):
    for i in range(8):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 60).save(path)
    assert any("odd: images with more than 8 bits" in line for line in check_folder(tmp_path).lines())
    assert not any("8 bits" in line for line in check_folder(tmp_path, value_range=(0, 4095)).lines())


def test_data_check_takes_the_layout_options_of_tune(tmp_path, capsys):
    data = tmp_path / "data"
    for i in range(4):
        for kind in ("left", "right"):
            (data / kind).mkdir(parents=True, exist_ok=True)
            pixels = np.full((16, 16, 3) if kind == "left" else (16, 16), 0, np.uint8)
            pixels[:4, :4] = 255
            Image.fromarray(pixels).save(data / kind / f"{i}.png")
    layout = ["--images", "left", "--masks", "right"]
    vpt("data", "check", data, *layout, "--labels", "ground=0,road=255")
    screen = capsys.readouterr().out
    assert "segmentation, 2 classes, 4 images" in screen and "  road    train" in screen
    assert exit_code("data", "check", data, *layout, "--labels", "0,7") == 3
    assert "255" in capsys.readouterr().err
    vpt("data", "check", data, "--task", "classification")
    assert "classification, 2 classes, 8 images" in capsys.readouterr().out
    vpt("data", "check", data, "--task", "classification", "--json", "--events", tmp_path / "events.jsonl")
    events = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(event)["event"] for event in events] == ["start", "end"]
    (facts,) = json.loads(capsys.readouterr().out)
    assert (facts["folder"], facts["task"], facts["classes"]) == (str(data), "classification", 2)
    assert facts["sizes_px"] == [[16, 16]] * 3
    counts = [sum(by_split.values()) for by_split in facts["images_per_class"].values()]
    assert counts == [4, 4] and sum(facts["images"].values()) == 8
    assert exit_code("data", "check", data, "--task", "classification", *layout) == 2
    assert "--images, --masks: for segmentation" in capsys.readouterr().err
