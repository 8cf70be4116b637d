"""Which options belong to classification or to segmentation alone, and whether a folder asks for the latter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from vpt.tasks.segmentation.sliding_window import InferenceConfig

# Of `vpt tune`, `predict` and `eval`, by the names of their parameters.
SEGMENTATION_OPTIONS = {
    "head",
    "iterations",
    "eval_every",
    "loss",
    "class_weights",
    "crops",
    "labels",
    "ignore_index",
    "reduce_zero_label",
    "val_as_test",
    "activation_checkpointing",
    "scales",
    "flip",
}
CLASSIFICATION_OPTIONS = {
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


def reject_options(names: set[str], reason: str) -> None:
    """Raise a usage error where the command at hand was given options of these names."""
    context = click.get_current_context()
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name in names and context.get_parameter_source(option.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)}: {reason}")


def is_segmentation_folder(data: str) -> bool:
    """Whether `data` is a folder of images and masks."""
    from vpt.data.segmentation_folder import detect_folder_layout

    return bool(data) and Path(data).is_dir() and detect_folder_layout(Path(data)) is not None


def parse_inference(scales: str, flip: bool) -> InferenceConfig:
    """How to predict, from `--scales` and `--flip`."""
    from vpt.tasks.segmentation.sliding_window import InferenceConfig

    try:
        return InferenceConfig(tuple(float(scale) for scale in scales.split(",")), flip)
    except ValueError as error:
        raise click.UsageError(f"--scales is {scales!r}; write numbers, such as 0.75,1,1.25") from error
