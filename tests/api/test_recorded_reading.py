"""What training read from, and how, is known to later commands, whether they get the file or the loaded model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vpt
from helpers.segmentation import write_split
from vpt.cli import main
from vpt.data.loading import load_dataset
from vpt.errors import DataError

OF_MASKS: dict[str, Any] = {
    "method": "linear", "iterations": 2, "batch_size": 2, "head": "linear", "progress": False,
}  # fmt: skip


def write_roads(folder: Path, count: int = 8) -> None:
    """Images whose right half is road, with masks of the ids 0 and 255."""
    rng = np.random.default_rng(0)
    for number in range(count):
        mask = np.zeros((48, 48), np.uint8)
        mask[:, int(rng.integers(16, 32)) :] = 255
        pixels = np.where(mask[..., None] > 0, 200, 40) + rng.integers(0, 20, (48, 48, 3))
        for name, array in (("images", pixels.astype(np.uint8)), ("masks", mask)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / name / f"{number}.png")


def test_eval_reads_masks_as_training_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_roads(tmp_path / "roads")
    out = tmp_path / "roads.safetensors"
    trained = vpt.tune(
        tmp_path / "roads", out, labels="ground=0,road=255", method="linear", iterations=4, batch_size=2, head="linear",
        progress=False,
    )  # fmt: skip
    assert vpt.inspect(out).split_options["labels"] == "ground=0,road=255"
    given = vpt.evaluate(out, tmp_path / "roads", split="val", labels="ground=0,road=255")
    assert vpt.evaluate(out, tmp_path / "roads", split="val").metrics == given.metrics
    assert vpt.evaluate(vpt.load(out), tmp_path / "roads", split="val").metrics == given.metrics
    assert trained.metrics["val_miou"] == pytest.approx(given.metrics["miou"])
    main(["eval", str(out), str(tmp_path / "roads"), "--split", "val", "--json"])
    assert f'"miou": {given.metrics["miou"]}' in capsys.readouterr().out


def test_loaded_model_measures_what_its_file_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("photos", "new"):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(10):
                pixels = rng.integers(0, 60, (16, 16, 3)) + 150 * label
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / name / f"{number}.png")
    out = tmp_path / "photos.safetensors"
    vpt.tune(tmp_path / "photos", out, method="linear", epochs=1, seed=3, progress=False)
    model = vpt.load(out)
    for folder, images in (("photos", 4), ("new", 20)):
        by_file, by_model = (vpt.evaluate(one, tmp_path / folder) for one in (out, model))
        assert by_file.images == by_model.images == images and by_file.metrics == by_model.metrics


def test_names_of_splits_are_those_of_the_training_alone(tmp_path: Path) -> None:
    for offset, part in enumerate(("part_A", "part_B")):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for number in range(6):
                pixels = np.full((16, 16, 3), 60 + 100 * label + 2 * number + offset, np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / part / name / f"{part}{number}.png")
    out, names = tmp_path / "photos.safetensors", "train=part_A,test=part_B"
    vpt.tune(tmp_path / "photos", out, method="linear", epochs=1, split_names=names, progress=False)
    assert vpt.evaluate(out, tmp_path / "photos").images == 12
    assert vpt.evaluate(out, tmp_path / "photos" / "part_B").images == 12


def test_splits_inside_images_and_masks_stay_those_of_the_training(tmp_path: Path) -> None:
    for name in ("aa", "bb", "cc"):
        write_roads(tmp_path / name, 4)
        for part in ("images", "masks"):
            (tmp_path / "roads" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / name / part).rename(tmp_path / "roads" / part / name)
    out = tmp_path / "roads.safetensors"
    vpt.tune(
        tmp_path / "roads", out, labels="0,255", reduce_zero_label=False, split_names="train=aa,val=bb,test=cc",
        method="linear", iterations=2, batch_size=2, head="linear", progress=False,
    )  # fmt: skip
    assert vpt.inspect(out).split_options["split_names"] == "train=aa,val=bb,test=cc"
    assert [vpt.evaluate(out, tmp_path / "roads", split=split).images for split in ("val", "test")] == [4, 4]


def test_labels_that_are_given_anew_leave_out_what_changed_the_old_ones(tmp_path: Path) -> None:
    write_roads(tmp_path / "roads")
    out = tmp_path / "roads.safetensors"
    vpt.tune(
        tmp_path / "roads", out, labels="0,255", ignore_index=7, method="linear", iterations=2, batch_size=2,
        head="linear", progress=False,
    )  # fmt: skip
    assert vpt.inspect(out).split_options["ignore_index"] == 7
    given = vpt.evaluate(out, tmp_path / "roads", split="val", labels="0,255")
    assert given.metrics == vpt.evaluate(out, tmp_path / "roads", split="val").metrics


def test_labels_that_were_recognized_are_read_alike_in_other_layouts(tmp_path: Path) -> None:
    write_split(tmp_path / "ade" / "images/training", tmp_path / "ade" / "annotations/training", 4)
    write_split(tmp_path / "plain" / "images", tmp_path / "plain" / "masks", 3)
    out = tmp_path / "ade.safetensors"
    vpt.tune(tmp_path / "ade", out, **OF_MASKS)
    assert vpt.inspect(out).split_options["labels"] == "ade20k"
    found = vpt.evaluate(out, tmp_path / "plain")
    assert found.confusion.sum(1).nonzero()[0].tolist() == [0, 1]  # wall and building, by the ids 1 and 2
    assert vpt.evaluate(out, tmp_path / "plain", labels="ade20k").metrics == found.metrics


def test_val_that_was_trained_on_is_not_scored(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_split(tmp_path / "roads/images" / split, tmp_path / "roads/masks" / split, 3 + (split == "val"))
        for name, value in (("dark", 0), ("light", 200)):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(4):
                pixels = np.full((16, 16, 3), value + i + 9 * (split == "val"), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{i}.png")
    for data, options in (("roads", OF_MASKS), ("photos", {"method": "linear", "epochs": 1, "progress": False})):
        out = tmp_path / f"{data}.safetensors"
        vpt.tune(tmp_path / data, out, train_on="trainval", **options)
        with pytest.raises(DataError, match=f"{data}: the training took val, too .*; score test or other data"):
            vpt.evaluate(out, tmp_path / data, split="val")
    for kind in ("images", "masks"):
        shutil.copytree(tmp_path / "roads" / kind / "train", tmp_path / "new" / kind)
    for path in (tmp_path / "new/images").iterdir():
        path.write_bytes(path.read_bytes() + b" ")  # another file
    assert vpt.evaluate(tmp_path / "roads.safetensors", tmp_path / "new", split="val").images == 3
    shutil.copytree(tmp_path / "photos", tmp_path / "others")
    for path in (tmp_path / "others").rglob("*.png"):
        path.write_bytes(path.read_bytes() + b" ")
    others = load_dataset(tmp_path / "others")
    assert vpt.evaluate(tmp_path / "photos.safetensors", others, split="val").images == 8


def test_val_as_test_is_scored_again_as_test(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 3)):
        write_split(tmp_path / "roads/images" / split, tmp_path / "roads/masks" / split, count)
    out = tmp_path / "roads.safetensors"
    trained = vpt.tune(tmp_path / "roads", out, val_as_test=True, **OF_MASKS)
    found = vpt.evaluate(out, tmp_path / "roads")
    assert found.images == 3 and found.metrics["miou"] == pytest.approx(trained.metrics["test_miou"])
    assert vpt.evaluate(out, tmp_path / "roads", split="val").images == 1
    write_split(tmp_path / "new/images/test", tmp_path / "new/masks/test", 2)
    write_split(tmp_path / "new/images/val", tmp_path / "new/masks/val", 5)
    assert [vpt.evaluate(out, tmp_path / "new", split=split).images for split in ("test", "val")] == [2, 5]
    write_split(tmp_path / "whole/images", tmp_path / "whole/masks", 6)
    assert vpt.evaluate(out, tmp_path / "whole").images == 6


@pytest.mark.parametrize(
    ("images", "masks", "names"),
    [("pics", "areas", {"images": "pics", "masks": "areas"}), ("x", "x", {"mask_suffix": "_a"})],
)
def test_names_of_images_and_masks_are_those_of_the_training_alone(
    images: str, masks: str, names: dict[str, str], tmp_path: Path
) -> None:
    write_split(tmp_path / "a", tmp_path / "b", 5)
    for source, folder, end in (("a", images, ""), ("b", masks, names.get("mask_suffix", ""))):
        (tmp_path / "roads" / folder).mkdir(parents=True, exist_ok=True)
        for path in (tmp_path / source).iterdir():
            path.rename(tmp_path / "roads" / folder / f"{path.stem}{end}{path.suffix}")
    out = tmp_path / "roads.safetensors"
    vpt.tune(tmp_path / "roads", out, task="segmentation", **names, **OF_MASKS)
    assert vpt.evaluate(out, tmp_path / "roads", split="val").images == 1
    write_split(tmp_path / "new/images", tmp_path / "new/masks", 3)
    assert vpt.evaluate(out, tmp_path / "new").images == 3
