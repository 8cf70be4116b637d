"""What `vpt tune`, `predict` and `eval` do where every pixel has a class."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt.cli.segment_options import CLASSIFICATION_OPTIONS, reject_options

if TYPE_CHECKING:
    from vpt.model.tuned_model import TunedModel
    from vpt.tasks.segmentation.sliding_window import InferenceConfig


def tune_command(
    data: str,
    out: Path | None,
    backbone: str,
    overwrite: bool,
    logger_spec: str | None,
    as_json: bool,
    method: str,
    options: dict[str, Any],
) -> None:
    """`vpt tune` on a folder of images and masks."""
    from vpt.cli.progress import ConsoleCallback
    from vpt.cli.units import format_bytes, format_duration
    from vpt.methods import parse_method
    from vpt.tasks.segmentation.job import SegmentationJob, tune_segmentation
    from vpt.tasks.segmentation.training import Course
    from vpt.training import distributed
    from vpt.training.loggers import log_job
    from vpt.training.run_directory import describe_outputs

    reject_options(CLASSIFICATION_OPTIONS, f"for classification, and {data} holds masks; see --task")
    names = Course.field_names()
    config = Course.for_method(parse_method(method), **{key: value for key, value in options.items() if key in names})
    job_options = {key: value for key, value in options.items() if key not in names | CLASSIFICATION_OPTIONS}
    job = SegmentationJob(
        data=data,
        out=out or Path(f"{Path(data).name or 'tuned'}.safetensors"),
        config=config,
        method=method,
        backbone=backbone,
        **{**job_options, "labels": job_options["labels"] or "auto"},
    )
    with (
        ConsoleCallback() as console,
        log_job(console, logger_spec if distributed.rank() == 0 else None, job) as callback,
    ):
        result = tune_segmentation(job, callback, overwrite=overwrite)
    if distributed.rank() != 0:
        return
    if as_json:
        click.echo(json.dumps(asdict(result), indent=1))
        return
    _print_iou(result.per_class)
    method_parameters = result.trainable_parameters - result.head_parameters
    for name, text in (
        ("mIoU", f"{100 * result.miou:.2f} % on {result.eval_split}, pixels {100 * result.pixel_accuracy:.2f} %"),
        ("method", f"{result.method}, {result.head} on {result.backbone}"),
        ("trained", f"{result.trainable_parameters:,}: head {result.head_parameters:,}, method {method_parameters:,}"),
        ("file", f"{result.file}, {format_bytes(result.file_bytes)}"),
        (
            "time",
            f"{format_duration(result.seconds)} of training, peak memory {format_bytes(result.peak_memory_bytes)}",
        ),
        ("more", describe_outputs(job)),
    ):
        click.echo(f"{name:<9}{text}")


def predict_command(
    model: TunedModel, images: list[Path], out_dir: Path, inference: InferenceConfig, callback: Any, as_json: bool
) -> None:
    """`vpt predict` with a dense head."""
    from vpt.tasks.segmentation.prediction import predict_masks

    outputs = predict_masks(
        model, images, out_dir, inference, on_image=lambda done, total: callback.on_data_progress("images", done, total)
    )
    for output in outputs:
        if as_json:
            classes = [{"class": name, "fraction": fraction} for name, fraction in output.class_fractions]
            files = {"image": output.image, "mask": output.mask, "overlay": output.overlay}
            click.echo(json.dumps({**files, "classes": classes}))
        else:
            largest = ", ".join(f"{name} {100 * fraction:.1f} %" for name, fraction in output.class_fractions[:4])
            click.echo(f"{output.image}: {largest}; {output.mask}, {output.overlay}")


def eval_command(
    model: TunedModel,
    data: str,
    split: str,
    inference: InferenceConfig,
    load_options: dict[str, Any],
    callback: Any,
    as_json: bool,
) -> None:
    """`vpt eval` with a dense head. load_options: how masks are read, see `load_segmentation_dataset`."""
    from vpt.data.segmentation_folder import load_segmentation_dataset
    from vpt.tasks.segmentation.job import iou_by_class
    from vpt.tasks.segmentation.prediction import evaluate_masks

    dataset = load_segmentation_dataset(data, classes=model.classes, **load_options)
    scores = evaluate_masks(
        model, dataset, split, inference, on_image=lambda done, total: callback.on_data_progress(split, done, total)
    )
    per_class = iou_by_class(dataset.classes, scores.per_class)
    if as_json:
        figures = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy}
        click.echo(
            json.dumps({"split": split, "images": len(dataset.splits[split]), **figures, "per_class": per_class})
        )
        return
    _print_iou(per_class)
    click.echo(f"mIoU {100 * scores.miou:.2f} %, pixels {100 * scores.pixel_accuracy:.2f} %, "
               f"{len(dataset.splits[split])} {split} images")  # fmt: skip


def _print_iou(per_class: dict[str, float | None]) -> None:
    for name, value in per_class.items():
        click.echo(f"{name:<24}" + ("no pixel" if value is None else f"IoU {100 * value:.1f} %"))
