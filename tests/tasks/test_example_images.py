"""Training images to be looked at, a few of each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vpt.tasks.registry import TASKS
from vpt.training import Callback
from vpt.tuning import make_job


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_examples_of_classes_are_three_images_of_each(tmp_path: Path) -> None:
    for name, level, count in (("dark", 40, 12), ("lit", 200, 2)):
        for i in range(count):
            write(tmp_path / "train" / name / f"{i}.png", np.full((9, 9, 3), level + i, np.uint8))
    job = make_job(tmp_path, tmp_path / "x.safetensors", method="linear", epochs=1, val_fraction=0, test_fraction=0)
    examples = TASKS["classification"].prepare(job, Callback()).examples()
    assert {name: len(images) for name, images in examples.items()} == {"dark": 3, "lit": 2}
    assert all(image.shape == (48, 48, 3) for images in examples.values() for image in images)
    assert {int(image.mean()) for image in examples["lit"]} == {200, 201}


def test_examples_of_masks_show_the_class_before_pale_others(tmp_path: Path) -> None:
    for i in range(5):
        mask = np.zeros((32, 400), np.uint8)
        mask[:, :100] = i == 4
        write(tmp_path / f"data/images/{i}.png", np.full((32, 400, 3), 40 + i, np.uint8))
        write(tmp_path / f"data/masks/{i}.png", mask)
    job = make_job(tmp_path / "data", tmp_path / "x.safetensors", method="linear", iterations=1, val_fraction=0)
    examples = TASKS["segmentation"].prepare(job, Callback()).examples()
    assert {name: len(images) for name, images in examples.items()} == {"0": 3, "1": 1}
    (image,) = examples["1"]
    assert image.shape == (16, 200, 3)
    assert (image[:, :50] == 44).all() and (image[:, 50:] == 255 - (255 - 44) // 4).all()
