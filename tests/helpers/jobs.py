"""Short jobs of each task, on the same noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vpt.data.memory.datasets import dataset_from_memory
from vpt.training.job import Job
from vpt.tuning import make_job

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 48, 48, 3), np.uint8)


def classification_job(folder: Path, name: str, **options: Any) -> Job:
    """A job of two epochs of three steps."""
    split = (PIXELS, [k % 2 for k in range(12)])
    data = dataset_from_memory({"train": split, "val": split, "test": split})
    return make_job(data, folder / name, epochs=2, batch_size=4, **options)


def segmentation_job(folder: Path, name: str, **options: Any) -> Job:
    """A job of two intervals of two steps."""
    root = folder / "scenes"
    for kind, arrays in (("images", PIXELS), ("masks", PIXELS[..., 0] // 128)):
        (root / kind).mkdir(parents=True, exist_ok=True)
        for k, array in enumerate(arrays):
            Image.fromarray(array).save(root / kind / f"{k}.png")
    options |= {"head": "linear", "image_size": 48, "iterations": 4, "eval_every": 2}
    return make_job(root, folder / name, batch_size=2, **options)
