"""Segmentation tasks of a plan: their data, the scores of their records, and the time of a step."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import torch

from vpt.backbones.backbone import Backbone
from vpt.data.segmentation_folder import load_segmentation_dataset
from vpt.data.segmentation_layouts import LAYOUT_HELP, ImageMaskPairs, detect_folder_layout
from vpt.errors import DataError, VptError
from vpt.experiments.design import Protocol, SegmentationOptions, Task
from vpt.experiments.plan_schema import SegmentationTaskTable
from vpt.model.attach import attach
from vpt.model.tuned_model import TunedModel
from vpt.tasks.segmentation.objective import cross_entropy
from vpt.tasks.segmentation.task import SegmentationTask

_MASK_KEYS = ("labels", "ignore_index", "reduce_zero_label", "val_as_test")  # keys of a row that say how masks are read


def list_segmentation_task(row: SegmentationTaskTable, path: Path, protocol: Protocol) -> Task:
    """List the data of a segmentation task; every image and mask is opened once.

    Args:
        row: Row of [[tasks]].
        path: File of the row, which its paths are relative to.
        protocol: Protocol of the plan, which says how data are split.

    Returns:
        The task.

    Raises:
        DataError: The data cannot be used.
    """
    folder = (path.parent / (row.data or row.name)).resolve()
    if not folder.is_dir() or detect_folder_layout(folder) is None:
        raise DataError(
            f"{path}: the data of task {row.name!r} are not a segmentation folder ({folder}); {LAYOUT_HELP}"
        )
    mask_options = {key: value for key, value in row.given().items() if key in _MASK_KEYS}
    try:
        dataset = load_segmentation_dataset(
            folder, val_fraction=protocol.val_fraction, seed=protocol.split_seed or 0, **mask_options
        )
    except VptError as error:
        raise type(error)(f"{path}: the task {row.name!r}: {error}") from error
    if "test" not in dataset.splits:
        raise DataError(
            f"{path}: the task {row.name!r} has no test images to be scored on; bring some, or score on its val: "
            "val_as_test = true (another val is cut from train)"
        )
    if "val" not in dataset.splits:
        raise DataError(f"{path}: the task {row.name!r} has no val images to choose settings on; bring some, or set "
                        "val_fraction above 0")  # fmt: skip
    return Task(
        name=row.name,
        data=str(folder),
        group=row.group,
        classes=len(dataset.classes),
        images={split: len(pairs) for split, pairs in dataset.splits.items()},
        digests={split: _digest(pairs) for split, pairs in dataset.splits.items()},
        notes=dataset.notes,
        mask_options=mask_options,
    )


def measure_step(
    backbone: Backbone, spec: str, segmentation: SegmentationOptions, classes: int, device: torch.device
) -> tuple[float, float, TunedModel]:
    """Return the time of a training step and of a forward pass per crop in seconds, and the model.

    Args:
        backbone: The backbone.
        spec: Text of the method.
        segmentation: Options of the experiment.
        classes: Number of classes.
        device: Device to measure on.

    Returns:
        The time of a training step and of a forward pass per crop in seconds, and the model.
    """
    model = attach(backbone, spec, classes, head=SegmentationTask().make_readout(segmentation.head, backbone),
                   activation_checkpointing=segmentation.activation_checkpointing).to(device)  # fmt: skip
    size = backbone.preprocessing.size
    crops, masks = torch.rand(2, 3, size, size).to(device), torch.zeros(2, size, size, dtype=torch.long).to(device)

    def step() -> None:
        cross_entropy(model.logits_with_auxiliary(crops)[0], masks).backward()

    def forward() -> None:
        with torch.inference_mode():
            model(crops)

    times = []
    for work in (step, forward):
        work()  # the first pass warms up
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) / len(crops))
    return times[0], times[1], model


def _digest(pairs: ImageMaskPairs) -> str:
    """Return a digest of names and sizes of images and masks."""
    digest = hashlib.sha256()
    for name, image, mask in zip(pairs.names, pairs.images, pairs.masks, strict=True):
        digest.update(f"{name}\0{image.stat().st_size}\0{mask.stat().st_size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:20]
