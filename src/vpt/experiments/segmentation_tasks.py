"""Segmentation tasks of a plan: how their rows are listed, what their runs record, and what a step of them costs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vpt.backbones.backbone import Backbone
from vpt.data.segmentation_folder import SHAPE, Pairs, layout_of, read_scenes
from vpt.errors import DataError, VptError
from vpt.experiments.experiment import Protocol, Segmentation, Task
from vpt.model.tuned_model import TunedModel, attach
from vpt.tasks.segmentation.job import Segmented, usual_head
from vpt.tasks.segmentation.training import cross_entropy

MASKS = ("labels", "ignore", "reduce_zero", "val_as_test")  # keys of a row: how the masks are read


def list_scenes(row: Mapping[str, Any], path: Path, protocol: Protocol) -> Task:
    """The task of one row, which stands in the file `path`; every image and mask is opened once.

    Raises DataError for what cannot be used.
    """
    folder = (path.parent / str(row.get("data", row["name"]))).resolve()
    if not folder.is_dir() or layout_of(folder) is None:
        raise DataError(f"{path}: the data of task {row['name']!r} are no segmentation folder ({folder}); {SHAPE}")
    masks = {key: row[key] for key in MASKS if key in row}
    try:
        scenes = read_scenes(folder, val_fraction=protocol.val_fraction, seed=protocol.split_seed, **masks)
    except VptError as error:
        raise type(error)(f"{path}: the task {row['name']!r}: {error}") from error
    if "test" not in scenes.parts:
        raise DataError(
            f"{path}: the task {row['name']!r} has no test images to be scored on; bring some, or score on its val: "
            "val_as_test = true (another val is cut from train)"
        )
    if "val" not in scenes.parts:
        raise DataError(f"{path}: the task {row['name']!r} has no val images to choose settings on; bring some, or set "
                        "val_fraction above 0")  # fmt: skip
    return Task(
        name=str(row["name"]),
        data=str(folder),
        group=str(row.get("group", "")),
        classes=len(scenes.classes),
        images={part: len(pairs) for part, pairs in scenes.parts.items()},
        digests={part: _digest(pairs) for part, pairs in scenes.parts.items()},
        notes=scenes.notes,
        masks=masks,
    )


def scores_of(result: Segmented) -> dict[str, Any]:
    """The scores of a record."""
    return {
        "part": result.scored_on,
        "miou": result.miou,
        "pixel_accuracy": result.pixel_accuracy,
        "per_class": result.per_class,
    }


def step_cost(
    backbone: Backbone, spec: str, segmentation: Segmentation, classes: int, device: torch.device
) -> tuple[float, float, TunedModel]:
    """Seconds of a training step and of a forward pass, per crop, with random pixels; and the model they were of."""
    model = attach(backbone, spec, classes, head=segmentation.head or usual_head(backbone.module),
                   recompute_blocks=segmentation.recompute_blocks).to(device)  # fmt: skip
    size = backbone.preprocessing.size
    crops, masks = torch.rand(2, 3, size, size).to(device), torch.zeros(2, size, size, dtype=torch.long).to(device)

    def step() -> None:
        cross_entropy(model.every_logits(crops)[0], masks).backward()

    def forward() -> None:
        with torch.inference_mode():
            model(crops)

    times = []
    for work in (step, forward):
        work()  # the first pass warms up
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) / len(crops))
    return times[0], times[1], model


def _digest(pairs: Pairs) -> str:
    """Over names and sizes of images and masks."""
    digest = hashlib.sha256()
    for name, image, mask in zip(pairs.names, pairs.images, pairs.masks, strict=True):
        digest.update(f"{name}\0{image.stat().st_size}\0{mask.stat().st_size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:20]
