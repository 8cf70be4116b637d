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
from vpt.data.segmentation_folder import read_scenes
from vpt.errors import SpecError, TrainingError
from vpt.model.tuned_model import attach
from vpt.plots import figures
from vpt.tasks.segmentation.sliding_window import Inference
from vpt.tasks.segmentation.training import Course, Lesson, measure
from vpt.training import distributed, fit
from vpt.training.job import Job, Listener, Outcome
from vpt.training.run_directory import Recorder, claim, conclude, open_run, record, record_failure

# Fields of `Job` that are for classification: images keep their size, masks their names.
_WITHOUT_EFFECT = {
    "train_fraction": 1.0,
    "test_fraction": 0.2,
    "resize": "squash",
    "interpolation": None,
    "skip_corrupt": False,
}


@dataclass(frozen=True)
class SegmentJob(Job):
    """A `Job` whose recipe is a `Course`. image_size: side of crops and windows. Fields for classification stay unset.

    head: text of the dense head; None is `fpn` where the backbone has stages and `setr_pup` where it has not.
    labels, ignore, reduce_zero, val_as_test: how the folder is read, see `read_scenes`. recompute_blocks: see `attach`.
    """

    head: str | None = None
    labels: str = "auto"
    ignore: int | None = None
    reduce_zero: bool = False
    val_as_test: bool = False
    recompute_blocks: bool = False

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in _WITHOUT_EFFECT}
        astray = [f"{name} is {value!r}" for name, value in given.items() if value != _WITHOUT_EFFECT[name]]
        if astray:
            raise SpecError(f"{', '.join(astray)}: without effect on segmentation; leave it out")

    @property
    def cut(self) -> dict[str, Any]:
        """How val is cut from train, where there is none: arguments of `read_scenes`."""
        return {name: value for name, value in super().cut.items() if name != "test_fraction"}


@dataclass(frozen=True, kw_only=True)
class Segmented(Outcome):
    """What came of it. miou, pixel_accuracy, per_class (IoU): at one scale, between 0 and 1."""

    head: str
    miou: float
    pixel_accuracy: float
    head_parameters: int


def tune_segmentation(
    job: SegmentJob, listener: Listener | None = None, *, overwrite: bool = False, draw: bool = True
) -> Segmented:
    """Do a job, or go on with it, or read what came of it. Options and errors are those of `vpt.tuning.tune`."""
    listener = listener or Listener()
    course = job.recipe
    if not isinstance(course, Course):
        raise SpecError("a segmentation job is trained by a Course, which counts iterations")
    finished = open_run(job, Segmented, listener, overwrite=overwrite)
    if finished is not None:
        return finished

    first = distributed.rank() == 0
    backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
    scenes = read_scenes(
        job.data,
        job.labels,
        ignore=job.ignore,
        reduce_zero=job.reduce_zero,
        **job.cut,
        test=job.test,
        train_on=job.train_on,
        val_as_test=job.val_as_test,
        progress=lambda done, total: listener.decoding("images and masks", done, total),
    )
    notes = [*backbone.notes, *scenes.notes]
    for note in notes:
        listener.note(note)
    if first:
        claim(job, scenes.digest)

    device = distributed.local_device()
    torch.manual_seed(course.seed)
    head = job.head or usual_head(backbone.module)
    model = attach(
        backbone,
        job.method,
        len(scenes.classes),
        classes=scenes.classes,
        head=head,
        recompute_blocks=job.recompute_blocks,
    ).to(device)
    environment.forget_peak(device)
    try:
        history = fit(
            model,
            Lesson(model, scenes, course),
            course,
            checkpoint=job.folder / "checkpoint.safetensors",
            watcher=Recorder(listener, job.folder / "metrics.jsonl"),
        )
    except TrainingError as error:
        if first:
            record_failure(job, error)
        raise

    peak = environment.peak_memory(device)
    scored_on = next(part for part in ("test", "val", "train") if part in scenes.parts)
    _, scores = measure(
        model,
        scenes.parts[scored_on],
        scenes.table,
        Inference(),
        on_image=lambda done, total: listener.decoding(f"scoring {scored_on}", done, total),
    )
    metrics = {f"{scored_on}_miou": scores.miou, f"{scored_on}_pixel_accuracy": scores.pixel_accuracy}
    result = conclude(
        job,
        Segmented,
        model,
        history,
        metrics,
        data=scenes.name,
        head=str(model.dense),
        scored_on=scored_on,
        miou=scores.miou,
        pixel_accuracy=scores.pixel_accuracy,
        per_class=named(scenes.classes, scores.per_class),
        images={part: len(pairs) for part, pairs in scenes.parts.items()},
        head_parameters=sum(weight.numel() for weight in model.head.parameters()),
        peak_memory_bytes=peak,
        notes=notes,
    )
    if first and draw:
        title = f"{result.method}, {result.head} on {scenes.name}"
        figures.curve(
            job.folder / "curve.png",
            history,
            title,
            x=f"stretch of {course.interval} iterations",
            score="score",
            names=("pixels right, train", "mIoU, val"),
        )
        figures.confusion(job.folder / "confusion.png", scores.confusion, scenes.classes, f"{title}, {scored_on}")
    if first:
        record(job, result)
    listener.finished(metrics)
    return result


def named(classes: Sequence[str], values: Any) -> dict[str, float | None]:
    """IoU by class name; None (not NaN, which JSON lacks) for a class that neither occurs nor is predicted."""
    return {name: None if math.isnan(value) else float(value) for name, value in zip(classes, values, strict=True)}


def usual_head(module: torch.nn.Module) -> str:
    """`fpn` for backbones whose maps have, as timm tells, more than one resolution, and `setr_pup` for others."""
    resolutions = {stage["reduction"] for stage in getattr(module, "feature_info", [])}
    return "fpn" if len(resolutions) > 1 else "setr_pup"
