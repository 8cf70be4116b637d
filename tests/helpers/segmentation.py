"""Miniature folders of images and masks, and a small model for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from vpt import attach
from vpt.backbones import Backbone
from vpt.data.masks.dataset import load_segmentation_dataset
from vpt.data.masks.schemes import IGNORE_INDEX


def write_split(folder: Path, masks: Path, count: int, suffix: str = ".jpg", first_id: int = 1) -> None:
    """Light squares on a dark ground: ground has the id `first_id`, squares the next."""
    rng = np.random.default_rng(count)
    for directory in (folder, masks):
        directory.mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(0, 60, (52, 70, 3), dtype=np.uint8)
        mask = np.full((52, 70), first_id, dtype=np.uint8)
        top, left = rng.integers(5, 25, 2)
        pixels[top : top + 20, left : left + 20] += 150
        mask[top : top + 20, left : left + 20] = first_id + 1
        mask[:3] = 0 if first_id else IGNORE_INDEX
        Image.fromarray(pixels).save(folder / f"scene_{i}{suffix}")
        Image.fromarray(mask).save(masks / f"scene_{i}.png")


def new_model(ade20k: Path) -> tuple[nn.Module, object]:
    torch.manual_seed(0)
    dataset = load_segmentation_dataset(ade20k, "plain", ignore_index=0)
    from vpt import load_backbone

    backbone: Backbone = load_backbone(image_size=48)
    return attach(backbone, "vpt(length=2)", len(dataset.classes), head="linear").eval(), dataset


def write_scenes(root: Path) -> Path:
    """Write a folder of 8 training, 3 validation and 4 test scenes of two classes, and return it."""
    for split, count in (("train", 8), ("val", 3), ("test", 4)):
        write_split(root / "images" / split, root / "masks" / split, count, first_id=0)
    return root
