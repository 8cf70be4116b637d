"""The registry of tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt import SpecError
from vpt.tasks.registry import TASKS, find_task


def _image(path: Path, *, mask: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((8, 8), np.uint8) if mask else np.full((8, 8, 3), 100, np.uint8)
    Image.fromarray(pixels).save(path)


def test_find_task_of_images_and_masks_is_segmentation(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _image(tmp_path / "images" / f"{name}.png")
        _image(tmp_path / "masks" / f"{name}.png", mask=True)
    assert find_task("auto", str(tmp_path)).name == "segmentation"


def test_find_task_of_class_folders_is_classification(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        _image(tmp_path / name / "1.png")
    assert find_task("auto", str(tmp_path)).name == "classification"
    assert find_task("auto", "digits").name == "classification"


def test_find_task_of_unknown_name_names_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"no task 'segment'; did you mean 'segmentation'"):
        find_task("segment", "photos")


def test_tasks_of_the_registry_name_their_main_metric() -> None:
    assert {name: next(iter(task.metrics)) for name, task in TASKS.items()} == {
        "classification": "top1",
        "segmentation": "miou",
    }
