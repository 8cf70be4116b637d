"""Folders of users that are called like a task of a benchmark, and folders with lists that are no task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command_line import exit_code, vpt
from helpers.miniatures import miniature
from vpt.datasets.catalog import TASKS, is_folder_of_task
from vpt.datasets.preparation import check_folder, prepare_task
from vpt.errors import DataError


def draw(path: Path, seed: int = 0, size: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)


def write_lists(root: Path, suffix: str = ".jpg", names: tuple[str, ...] = ("train", "val", "test")) -> Path:
    for k, name in enumerate(names):
        images = [(f"{label}/{name}{i}{suffix}", j) for j, label in enumerate(("cat", "dog")) for i in range(4)]
        for i, (image, _) in enumerate(images):
            draw(root / image, 100 * k + i)
        (root / f"{name}.txt").write_text("".join(f"{image} {label}\n" for image, label in images))
    return root


@pytest.mark.parametrize("by_name", [True, False])
def test_data_check_of_class_folders_called_like_a_task_checks_them(
    by_name: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(12):
        draw(tmp_path / "pets" / ("cat", "dog")[i % 2] / f"{i}.png", i)
    monkeypatch.chdir(tmp_path)
    vpt("data", "check", *(["pets"] if by_name else [tmp_path / "pets"]))
    printed = capsys.readouterr().out
    assert "pets: classification, 2 classes, 12 images" in printed
    assert "is checked as it is, not as the benchmark task pets" in printed
    assert exit_code("data", "check", "vtab", "--data", tmp_path) == 3
    text = capsys.readouterr().err
    assert "pets contains no list files" in text and "vpt data prepare pets" in text and "delete" not in text


def test_data_check_of_an_imported_folder_called_like_a_task_checks_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_lists(tmp_path / "flowers")
    manifest = {"classes": ["cat", "dog"], "images": {}, "notes": ["2 images of test have no label"]}
    (root / "prepared.json").write_text(json.dumps(manifest))
    vpt("data", "check", "flowers", "--data", tmp_path)
    printed = capsys.readouterr().out
    assert "flowers: classification, 2 classes, 24 images" in printed and "odd: 2 images of test" in printed


def test_is_folder_of_task_depends_on_what_the_folder_holds(tmp_path: Path) -> None:
    pets, cars = TASKS["pets"], TASKS["cars"]
    assert is_folder_of_task(tmp_path / "pets", pets)  # to be prepared
    assert not is_folder_of_task(write_lists(tmp_path / "pets", names=("train", "test")), pets)
    (tmp_path / "pets" / "train800.txt").touch()
    assert is_folder_of_task(tmp_path / "pets", pets)
    assert not is_folder_of_task(write_lists(tmp_path / "cars", names=("train", "test")), cars)
    assert is_folder_of_task(write_lists(tmp_path / "cars"), cars)
    (tmp_path / "cars" / ".preparing.json").write_text("{}")
    with pytest.raises(DataError, match="is not complete"):
        is_folder_of_task(tmp_path / "cars", cars)


def test_check_folder_advises_to_delete_only_what_was_prepared(tmp_path: Path) -> None:
    task = miniature("eurosat", tmp_path / "source")
    prepare_task(task, tmp_path / "out", tmp_path / "source")
    folder = tmp_path / "out" / "eurosat"
    next((folder / "images" / "test").rglob("*.jpg")).write_bytes(b"no image")
    with pytest.raises(DataError, match="to create it again: delete the folder, then run `vpt data prepare eurosat"):
        check_folder(folder, task)
    (folder / "prepared.json").unlink()
    with pytest.raises(DataError, match=r"1 fault(?s:.)*in a new folder: run `vpt data prepare") as caught:
        check_folder(folder, task)
    assert "delete" not in str(caught.value)


def test_data_check_of_lists_decodes_every_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_lists(tmp_path / "photos")
    vpt("data", "check", root)
    assert "photos: classification, 2 classes, 24 images (train 8, val 8, test 8)" in capsys.readouterr().out
    torn = root / "cat" / "val1.jpg"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    assert exit_code("data", "check", root) == 3
    assert "cat/val1.jpg: damaged" in capsys.readouterr().err


def test_data_check_of_lists_takes_the_options_of_tune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_lists(tmp_path / "scans", ".png")
    for path in root.rglob("*.png"):
        Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 60 + len(path.stem)).save(path)
    vpt("data", "check", root)
    assert "odd: images with more than 8 bits" in capsys.readouterr().out
    vpt("data", "check", root, "--value-range", "0,4095")
    assert "8 bits" not in capsys.readouterr().out
    assert exit_code("data", "check", root, "--label-kind", "multi_label") == 2
    assert "--label-kind is 'multi_label'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["heif", "deep"])
def test_check_folder_reads_headers_of_every_format(kind: str, tmp_path: Path) -> None:
    root = write_lists(tmp_path / "photos")
    image = root / "dog" / "test0.jpg"
    if kind == "heif":
        pytest.importorskip("pillow_heif").register_heif_opener()
        with Image.open(image) as photo:
            photo.copy().save(image, "HEIF")
    else:  # a TIFF that Pillow cannot open
        values = np.zeros((16, 16, 3), np.float32)
        pytest.importorskip("tifffile").imwrite(image, values, photometric="rgb")
        with pytest.raises(OSError, match="cannot identify"):
            Image.open(image)
    check_folder(root)
    # Pillow starts another program for EPS.
    image.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(DataError, match=r"dog/test0\.jpg: cannot be read as an image"):
        check_folder(root)
