"""The segmentation job: a folder of images and masks in, one small tuned file out.

Its run folder is like that of `vpt.tuning`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vpt.backbones import load_backbone
from vpt.core import environment
from vpt.data.segmentation_folder import load_segmentation_dataset
from vpt.errors import SpecError, TrainingError
from vpt.model.tuned_model import attach
from vpt.plots import figures
from vpt.tasks.segmentation.sliding_window import InferenceConfig
from vpt.tasks.segmentation.training import Course, Lesson, score_pairs
from vpt.training import Callback, CallbackList, distributed, fit
from vpt.training.job import Job, RunResult
from vpt.training.run_directory import MetricsRecorder, build_result, open_run, write_failure, write_job, write_result

# Fields of `Job` that are for classification: images keep their size, masks their names.
_CLASSIFICATION_DEFAULTS = {
    "train_fraction": 1.0,
    "test_fraction": 0.2,
    "resize": "squash",
    "interpolation": None,
    "skip_corrupt": False,
}


@dataclass(frozen=True)
class SegmentationJob(Job):
    """A `Job` whose configuration is a `Course`. image_size: side of crops and windows. Fields for classification stay unset.

    head: text of the dense head; None is `fpn` where the backbone has stages and `setr_pup` where it has not.
    labels, ignore_index, reduce_zero_label, val_as_test: how the folder is read, see `load_segmentation_dataset`. activation_checkpointing: see `attach`.
    """

    head: str | None = None
    labels: str = "auto"
    ignore_index: int | None = None
    reduce_zero_label: bool = False
    val_as_test: bool = False
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in _CLASSIFICATION_DEFAULTS}
        unused = [f"{name} is {value!r}" for name, value in values.items() if value != _CLASSIFICATION_DEFAULTS[name]]
        if unused:
            raise SpecError(f"{', '.join(unused)}: without effect on segmentation; leave it out")

    @property
    def split_options(self) -> dict[str, Any]:
        """How val is cut from train, where there is none: arguments of `load_segmentation_dataset`."""
        return {name: value for name, value in super().split_options.items() if name != "test_fraction"}


@dataclass(frozen=True, kw_only=True)
class SegmentationResult(RunResult):
    """What came of it. miou, pixel_accuracy, per_class (IoU): at one scale, between 0 and 1."""

    head: str
    miou: float
    pixel_accuracy: float
    head_parameters: int


def tune_segmentation(
    job: SegmentationJob, callback: Callback | None = None, *, overwrite: bool = False, draw: bool = True
) -> SegmentationResult:
    """Do a job, or go on with it, or read what came of it. Options and errors are those of `vpt.tuning.tune`."""
    callback = callback or Callback()
    course = job.config
    if not isinstance(course, Course):
        raise SpecError("a segmentation job is trained by a Course, which counts iterations")
    finished_result = open_run(job, SegmentationResult, callback, overwrite=overwrite)
    if finished_result is not None:
        return finished_result

    is_main = distributed.rank() == 0
    backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
    dataset = load_segmentation_dataset(
        job.data,
        job.labels,
        ignore_index=job.ignore_index,
        reduce_zero_label=job.reduce_zero_label,
        **job.split_options,
        include_test=job.test,
        train_on=job.train_on,
        val_as_test=job.val_as_test,
        progress=lambda done, total: callback.on_data_progress("images and masks", done, total),
    )
    notes = [*backbone.notes, *dataset.notes]
    for note in notes:
        callback.on_note(note)
    if is_main:
        write_job(job, dataset.digest)

    device = distributed.local_device()
    torch.manual_seed(course.seed)
    head = job.head or default_head(backbone.module)
    model = attach(
        backbone,
        job.method,
        len(dataset.classes),
        classes=dataset.classes,
        head=head,
        activation_checkpointing=job.activation_checkpointing,
    ).to(device)
    environment.reset_peak_memory(device)
    try:
        history = fit(
            model,
            Lesson(model, dataset, course),
            course,
            checkpoint=job.run_dir / "checkpoint.safetensors",
            callback=CallbackList([MetricsRecorder(job.run_dir / "metrics.jsonl"), callback]),
        )
    except TrainingError as error:
        if is_main:
            write_failure(job, error)
        raise

    peak = environment.peak_memory(device)
    eval_split = next(split for split in ("test", "val", "train") if split in dataset.splits)
    _, scores = score_pairs(
        model,
        dataset.splits[eval_split],
        dataset.lookup_table,
        InferenceConfig(),
        on_image=lambda done, total: callback.on_data_progress(f"scoring {eval_split}", done, total),
    )
    metrics = {f"{eval_split}_miou": scores.miou, f"{eval_split}_pixel_accuracy": scores.pixel_accuracy}
    result = build_result(
        job,
        SegmentationResult,
        model,
        history,
        metrics,
        data=dataset.name,
        head=str(model.readout),
        eval_split=eval_split,
        miou=scores.miou,
        pixel_accuracy=scores.pixel_accuracy,
        per_class=iou_by_class(dataset.classes, scores.per_class),
        images={split: len(pairs) for split, pairs in dataset.splits.items()},
        head_parameters=sum(weight.numel() for weight in model.head.parameters()),
        peak_memory_bytes=peak,
        notes=notes,
    )
    if is_main and draw:
        title = f"{result.method}, {result.head} on {dataset.name}"
        figures.training_curves(
            job.run_dir / "curve.png",
            history,
            title,
            xlabel=f"evaluation interval of {course.eval_every} iterations",
            metric="score",
            labels=("pixel accuracy, train", "mIoU, val"),
        )
        figures.confusion_matrix(
            job.run_dir / "confusion.png", scores.confusion, dataset.classes, f"{title}, {eval_split}"
        )
    if is_main:
        write_result(job, result)
    callback.on_train_end(metrics)
    return result


def iou_by_class(classes: Sequence[str], values: Any) -> dict[str, float | None]:
    """IoU by class name; None (not NaN, which JSON lacks) for a class that neither occurs nor is predicted."""
    return {name: None if math.isnan(value) else float(value) for name, value in zip(classes, values, strict=True)}


def default_head(module: torch.nn.Module) -> str:
    """`fpn` for backbones whose maps have, as timm tells, more than one resolution, and `setr_pup` for others."""
    resolutions = {stage["reduction"] for stage in getattr(module, "feature_info", [])}
    return "fpn" if len(resolutions) > 1 else "setr_pup"
