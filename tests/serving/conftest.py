"""A folder of tuned files: classifications by prompts, by a head alone and by more than that, and a segmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vpt import attach, load_backbone, save

TASKS = {
    "animals": ("vpt(length=3)", ("cat", "dog")),
    "plants": ("vpt(length=3)", ("oak", "rose", "fern")),
    "deeper": ("vpt(length=7)", ("a", "b")),
    "probe": ("linear", ("left", "right")),
    "biased": ("bias", ("up", "down")),
    "lora": ("lora(rank=2)", ("in", "out")),
    "ssf": ("ssf", ("on", "off")),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tasks")
    backbone = load_backbone()
    for number, (name, (method, classes)) in enumerate(TASKS.items()):
        _save(root / f"{name}.safetensors", attach(backbone, method, len(classes), classes=classes), number)
    scenes = attach(backbone, "vpt(length=2)", 3, classes=("sky", "road", "tree"), head="linear")
    _save(root / "scenes.safetensors", scenes, len(TASKS))
    return root


def _save(path: Path, model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.normal_(std=0.5, generator=generator)
    save(model, path, scores={"test_top1": 0.5, "missing": float("nan")})


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Images of several sizes."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (50 + 3 * i, 70, 3), dtype=np.uint8)) for i in range(6)]
