"""Which options belong to segmentation, and whether a folder asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vpt.segment.sliding import Inference

SEGMENT_ONLY = (
    "head",
    "iterations",
    "interval",
    "loss",
    "class_weights",
    "crops",
    "labels",
    "ignore",
    "reduce_zero",
    "val_as_test",
    "recompute_blocks",
)
CLASSIFY_ONLY = {
    "epochs": None,
    "warmup_epochs": None,
    "augment": None,
    "probe_epochs": None,
    "train_fraction": 1.0,
    "test_fraction": 0.2,
    "resize": "squash",
    "cache": None,
    "skip_corrupt": False,
}


def segments(data: str) -> bool:
    """Whether `data` is a folder of images and masks."""
    from vpt.segment.folders import layout_of

    return Path(data).is_dir() and layout_of(Path(data)) is not None


def inference(scales: str, flip: bool) -> Inference:
    """How to predict, from `--scales` and `--flip`."""
    from vpt.segment.sliding import Inference

    try:
        return Inference(tuple(float(scale) for scale in scales.split(",")), flip)
    except ValueError as error:
        raise click.UsageError(f"--scales is {scales!r}; write numbers, such as 0.75,1,1.25") from error
