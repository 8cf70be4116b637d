"""Which options belong to classification or to segmentation alone, and whether a folder asks for the latter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from vpt.tasks.segmentation.sliding_window import Inference

# Of `vpt tune`, `predict` and `eval`, by the names of their parameters.
SEGMENT_ONLY = {
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
    "scales",
    "flip",
}
CLASSIFY_ONLY = {
    "epochs",
    "warmup_epochs",
    "augment",
    "probe_epochs",
    "train_fraction",
    "test_fraction",
    "resize",
    "interpolation",
    "cache",
    "skip_corrupt",
    "top",
}


def refuse(names: set[str], why: str) -> None:
    """Raise a usage error where the command at hand was given options of these names."""
    context = click.get_current_context()
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name in names and context.get_parameter_source(option.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)}: {why}")


def segments(data: str) -> bool:
    """Whether `data` is a folder of images and masks."""
    from vpt.data.segmentation_folder import layout_of

    return bool(data) and Path(data).is_dir() and layout_of(Path(data)) is not None


def inference(scales: str, flip: bool) -> Inference:
    """How to predict, from `--scales` and `--flip`."""
    from vpt.tasks.segmentation.sliding_window import Inference

    try:
        return Inference(tuple(float(scale) for scale in scales.split(",")), flip)
    except ValueError as error:
        raise click.UsageError(f"--scales is {scales!r}; write numbers, such as 0.75,1,1.25") from error
