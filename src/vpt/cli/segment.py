"""What `vpt tune`, `predict` and `eval` do where every pixel has a class."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt.cli.segment_options import CLASSIFY_ONLY, refuse

if TYPE_CHECKING:
    from vpt.model.tuned_model import TunedModel
    from vpt.tasks.segmentation.sliding_window import Inference


def tune_command(
    data: str,
    out: Path | None,
    backbone: str,
    overwrite: bool,
    track: str | None,
    as_json: bool,
    method: str,
    options: dict[str, Any],
) -> None:
    """`vpt tune` on a folder of images and masks."""
    from vpt.cli.progress import ConsoleListener
    from vpt.cli.units import duration, size
    from vpt.methods import parse_method
    from vpt.tasks.segmentation.job import SegmentJob, tune_segmentation
    from vpt.tasks.segmentation.training import Course
    from vpt.training import distributed
    from vpt.training.loggers import tracked
    from vpt.training.run_directory import contents

    refuse(CLASSIFY_ONLY, f"for classification, and {data} holds masks; see --task")
    names = Course.choices()
    course = Course.of(parse_method(method), **{key: value for key, value in options.items() if key in names})
    rest = {key: value for key, value in options.items() if key not in names | CLASSIFY_ONLY}
    job = SegmentJob(
        data=data,
        out=out or Path(f"{Path(data).name or 'tuned'}.safetensors"),
        recipe=course,
        method=method,
        backbone=backbone,
        **{**rest, "labels": rest["labels"] or "auto"},
    )
    with ConsoleListener() as console, tracked(console, track if distributed.rank() == 0 else None, job) as listener:
        result = tune_segmentation(job, listener, overwrite=overwrite)
    if distributed.rank() != 0:
        return
    if as_json:
        click.echo(json.dumps(asdict(result), indent=1))
        return
    _table(result.per_class)
    rest_count = result.trained_parameters - result.head_parameters
    for name, text in (
        ("mIoU", f"{100 * result.miou:.2f} % on {result.scored_on}, pixels {100 * result.pixel_accuracy:.2f} %"),
        ("method", f"{result.method}, {result.head} on {result.backbone}"),
        ("trained", f"{result.trained_parameters:,}: head {result.head_parameters:,}, method {rest_count:,}"),
        ("file", f"{result.file}, {size(result.file_bytes)}"),
        ("time", f"{duration(result.seconds)} of training, peak memory {size(result.peak_memory_bytes)}"),
        ("more", contents(job)),
    ):
        click.echo(f"{name:<9}{text}")


def predict_command(
    model: TunedModel, images: list[Path], folder: Path, how: Inference, listener: Any, as_json: bool
) -> None:
    """`vpt predict` with a dense head."""
    from vpt.tasks.segmentation.prediction import predict_masks

    answers = predict_masks(
        model, images, folder, how, on_image=lambda done, total: listener.decoding("images", done, total)
    )
    for answer in answers:
        if as_json:
            click.echo(json.dumps({**asdict(answer), "found": [dict(zip(("class", "share"), pair, strict=True))
                                                               for pair in answer.found]}))  # fmt: skip
        else:
            most = ", ".join(f"{name} {100 * share:.1f} %" for name, share in answer.found[:4])
            click.echo(f"{answer.image}: {most}; {answer.mask}, {answer.overlay}")


def eval_command(
    model: TunedModel,
    data: str,
    part: str,
    how: Inference,
    reading: dict[str, Any],
    listener: Any,
    as_json: bool,
) -> None:
    """`vpt eval` with a dense head. reading: how masks are read, see `read_scenes`."""
    from vpt.data.segmentation_folder import read_scenes
    from vpt.tasks.segmentation.job import named
    from vpt.tasks.segmentation.prediction import evaluate_masks

    scenes = read_scenes(data, classes=model.classes, **reading)
    scores = evaluate_masks(model, scenes, part, how, on_image=lambda done, total: listener.decoding(part, done, total))
    per_class = named(scenes.classes, scores.per_class)
    if as_json:
        figures = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy}
        click.echo(json.dumps({"part": part, "images": len(scenes.parts[part]), **figures, "per_class": per_class}))
        return
    _table(per_class)
    click.echo(f"mIoU {100 * scores.miou:.2f} %, pixels {100 * scores.pixel_accuracy:.2f} %, "
               f"{len(scenes.parts[part])} {part} images")  # fmt: skip


def _table(per_class: dict[str, float | None]) -> None:
    for name, value in per_class.items():
        click.echo(f"{name:<24}" + ("no pixel" if value is None else f"IoU {100 * value:.1f} %"))
