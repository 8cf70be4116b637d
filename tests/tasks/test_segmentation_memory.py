"""Segmentation reads an image and its mask when they are used: memory does not grow with their number."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers.segmentation import new_model
from vpt.data.masks.dataset import load_segmentation_dataset
from vpt.tasks.segmentation.config import SegmentationConfig
from vpt.tasks.segmentation.objective import SegmentationObjective
from vpt.tasks.segmentation.prediction import score_split
from vpt.tasks.segmentation.sliding_window import InferenceConfig
from vpt.training import TrainingConfig

SIDE = 160
PIXELS = 3 * SIDE**2  # bytes of an image


def write_scenes(root: Path, count: int) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{index}.png")
        Image.fromarray(pixels[..., 0] // 128 + 1).save(root / "masks" / f"{index}.png")
    return root


def peak(root: Path, model: torch.nn.Module) -> int:
    """Return the peak of what NumPy and Python allocate in checking, an epoch of batches of one, and scoring."""
    tracemalloc.start()
    dataset = load_segmentation_dataset(root, "plain", ignore_index=0, val_fraction=0)
    config = SegmentationConfig(TrainingConfig(batch_size=1), iterations=len(dataset.splits["train"]))
    objective = SegmentationObjective(model, dataset, config)  # type: ignore[arg-type]
    for draws in objective.batches(0)[: config.iterations]:
        objective.crops.load(draws, (0, 0))
    score_split(model, dataset, "train", InferenceConfig())  # type: ignore[arg-type]
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_peak_memory_of_segmentation_does_not_grow_with_the_images(ade20k: Path, tmp_path: Path) -> None:
    model, _ = new_model(ade20k)

    def answer(images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), int(model.num_classes), *images.shape[2:])  # type: ignore[arg-type]

    model.forward = answer  # type: ignore[method-assign]
    few, many = (write_scenes(tmp_path / str(count), count) for count in (32, 80))  # more than threads decode at once
    peak(few, model)
    assert peak(many, model) - peak(few, model) < 4 * PIXELS < 48 * PIXELS  # of 48 more images
