"""`vpt tune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("data")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The tuned file [default: DATA.safetensors].",
)
@click.option("--backbone", help="A timm name [default: the embedded one, no download].")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights (.safetensors, .pth, .npz).")
@click.option("--method", default="vpt", show_default=True, help='A method, such as "vpt(length=10, depth=deep)".')
@click.option("--epochs", type=int, help="Passes over the training images [default: 100].")
@click.option("--batch-size", type=int, help="Images per step [default: 64].")
@click.option("--lr", "learning_rate", type=float, help="Learning rate per 256 images [default: the method's].")
@click.option("--weight-decay", type=float, help="[default: the method's]")
@click.option("--optimizer", type=click.Choice(["sgd", "adamw"]), help="[default: the method's]")
@click.option("--warmup-epochs", type=float, help="[default: a tenth of the epochs]")
@click.option(
    "--augment", type=click.Choice(["none", "flip", "random_crop", "random_resized_crop"]), help="[default: none]"
)
@click.option(
    "--grad-accum-steps", type=int, help="Compute each step in this many micro-batches, to save memory [default: 1]."
)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="[default: auto]")
@click.option(
    "--probe-epochs", type=int, help="First train the head alone, on frozen features, this long [default: 0]."
)
@click.option("--head-lr-scale", type=float, help="Learning rate of the head, relative to the rest's [default: 1].")
@click.option("--seed", type=int, help="[default: 0]")
@click.option("--train-on", type=click.Choice(["train", "trainval"]), default="train", show_default=True,
              help="trainval: validation images train too.")  # fmt: skip
@click.option("--val-fraction", type=float, default=0.2, show_default=True, help="Cut from train where val is missing.")
@click.option(
    "--test-fraction",
    type=float,
    default=0.2,
    show_default=True,
    help="Cut from train where test is missing.",
)
@click.option(
    "--train-fraction", type=float, default=1.0, show_default=True, help="Train on this fraction of each class."
)
@click.option("--image-size", type=int, help="Side in pixels, if not the backbone's own; positions are resized.")
@click.option("--resize", type=click.Choice(["squash", "crop"]), default="squash", show_default=True)
@click.option("--interpolation", type=click.Choice(["nearest", "bilinear", "bicubic", "lanczos"]),
              help="[default: the backbone's]")  # fmt: skip
@click.option("--save-dtype", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@click.option(
    "--cache", type=click.Path(path_type=Path, file_okay=False), help="Keep decoded images and frozen features here."
)
@click.option("--skip-corrupt", is_flag=True, help="Leave out unreadable images instead of refusing.")
@click.option("--overwrite", is_flag=True, help="Begin anew, whatever an earlier run left.")
@click.option("--logger", "logger_spec", help="Log to: tensorboard[:FOLDER], mlflow[:URI] or wandb[:PROJECT].")
@click.option("--task", type=click.Choice(["auto", "classify", "segment"]), default="auto", show_default=True,
              help="auto: segment where DATA holds images and masks.")  # fmt: skip
@click.option("--head", help="Segmentation: setr_pup, linear or fpn, with options [default: by backbone].")
@click.option("--iterations", type=int, help="Segmentation: steps [default: 2000].")
@click.option("--eval-every", type=int, help="Segmentation: steps between evaluations on val [default: 200].")
@click.option("--loss", type=click.Choice(["ce", "dice", "ce+dice"]), help="Segmentation [default: ce].")
@click.option("--class-weights", type=click.Choice(["none", "balanced"]), help="Segmentation [default: none].")
@click.option("--crops", type=click.Choice(["none", "flip", "full"]), help="Segmentation [default: full].")
@click.option("--labels", help="Segmentation: ade20k, cityscapes, voc, camvid or plain [default: by layout].")
@click.option("--ignore-index", type=int, help="Segmentation: a further id in masks that stands for no class.")
@click.option("--reduce-zero-label", is_flag=True, help="Segmentation: id 0 stands for no class, 1 for the first.")
@click.option("--val-as-test", is_flag=True, help="Segmentation: score on val, and cut another val from train.")
@click.option("--activation-checkpointing", is_flag=True, help="Segmentation: less memory, a third more time.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def command(
    data: str,
    out: Path | None,
    backbone: str | None,
    overwrite: bool,
    logger_spec: str | None,
    as_json: bool,
    method: str,
    task: str,
    **options: Any,
) -> None:
    """Adapt a frozen backbone to DATA and write one small file.

    DATA is a folder of class folders (with or without train/val/test), a folder with VTAB list files, a folder of
    images/ and masks/ (or laid out like CamVid, ADE20K, Cityscapes, VOC), or a built-in task (`vpt list tasks`).
    Stopped by Ctrl-C or a crash, the same command goes on where it was.

    \b
    vpt tune photos/ --out photos.safetensors
    vpt tune photos/ --backbone vit_base_patch16_224.augreg_in21k --method "vpt(length=50)" --epochs 30
    vpt tune photos/ --method linear --out probe.safetensors --json
    """
    from vpt.backbones import DEFAULT
    from vpt.cli.progress import ConsoleCallback
    from vpt.cli.segment_options import SEGMENTATION_OPTIONS, is_segmentation_folder, reject_options
    from vpt.methods import parse_method
    from vpt.training import TrainingConfig, distributed
    from vpt.training.job import Job
    from vpt.training.loggers import log_job
    from vpt.tuning import tune

    if task == "segment" or (task == "auto" and is_segmentation_folder(data)):
        from vpt.cli.segment import tune_command

        tune_command(data, out, backbone or DEFAULT, overwrite, logger_spec, as_json, method, options)
        return
    reject_options(SEGMENTATION_OPTIONS, f"for segmentation, and {data} is classified; see --task")
    names = TrainingConfig.field_names()
    config = TrainingConfig.for_method(
        parse_method(method), **{key: value for key, value in options.items() if key in names}
    )
    job_options = {key: value for key, value in options.items() if key not in names | SEGMENTATION_OPTIONS}
    job = Job(
        data=data,
        out=out or Path(f"{Path(data).name or 'tuned'}.safetensors"),
        config=config,
        method=method,
        backbone=backbone or DEFAULT,
        **job_options,
    )
    with (
        ConsoleCallback() as console,
        log_job(console, logger_spec if distributed.rank() == 0 else None, job) as callback,
    ):
        if backbone is None and Path(data).is_dir():
            callback.on_note(
                f"the embedded backbone ({DEFAULT}) is small and meant for trying out; photos deserve a larger one, "
                "such as --backbone vit_base_patch16_224.augreg_in21k"
            )
        result = tune(job, callback, overwrite=overwrite)
    if distributed.rank() != 0:
        return
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(result), indent=1))
    else:
        _summary(result, job)


def _summary(result: Any, job: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from vpt.cli.units import format_bytes, format_duration
    from vpt.training.run_directory import describe_outputs

    console = Console(highlight=False)
    classes = Table(
        "class",
        "top-1, %",
        title=f"{result.data}, {result.eval_split}: {result.images[result.eval_split]} images",
    )
    for name, value in sorted(result.per_class.items(), key=lambda item: -1 if item[1] is None else item[1]):
        classes.add_row(name, "no image" if value is None else f"{100 * value:.1f}")
    if len(result.per_class) <= 30:
        console.print(classes)
    trained = f"{result.trainable_parameters:,} of {result.total_parameters:,} parameters"
    mean = f"mean per class {100 * result.mean_per_class:.2f} %"
    lines = [
        ("top-1", f"{100 * result.top1:.2f} % on {result.eval_split}, {mean}"),
        ("method", f"{result.method} on {result.backbone}"),
        ("trained", f"{trained} ({100 * result.trainable_fraction:.2f} %)"),
        ("file", f"{result.file}, {format_bytes(result.file_bytes)}"),
        (
            "time",
            f"{format_duration(result.seconds)} of training, peak memory {format_bytes(result.peak_memory_bytes)}",
        ),
        ("more", describe_outputs(job)),
    ]
    for name, text in lines:
        console.print(f"{name:<9}{text}", markup=False, soft_wrap=True)
