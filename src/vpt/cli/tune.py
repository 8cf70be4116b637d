"""`vpt tune`."""

from __future__ import annotations

import json
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt.cli.common_options import (
    complete_backbones,
    complete_methods,
    device_option,
    ignore_index_option,
    labels_option,
    weights_option,
    zero_label_option,
)
from vpt.cli.option_groups import TaskCommand, options_of_task, read_config_file, task_option

if TYPE_CHECKING:
    from vpt.training.job import RunResult

_MAX_CLASSES = 30  # rows of the table of classes
_classification = partial(task_option, "classification")
_segmentation = partial(task_option, "segmentation")


@click.command(cls=TaskCommand)
@click.argument("data")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="The tuned file [default: DATA.safetensors]."
)
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), is_eager=True,
              expose_value=False, callback=read_config_file,
              help="Take options from a TOML file, such as the run.toml of an earlier run.")  # fmt: skip
@click.option("--task", type=click.Choice(["auto", "classification", "segmentation"]), default="auto",
              show_default=True, help="auto: segmentation where DATA holds images and masks.")  # fmt: skip
@click.option("--backbone", shell_complete=complete_backbones,
              help="A timm name [default: the embedded one, no download].")  # fmt: skip
@weights_option
@click.option("--method", default="vpt", show_default=True, shell_complete=complete_methods,
              help='A method, such as "vpt(length=10, depth=deep)".')  # fmt: skip
@click.option("--head", help="linear or multi_block(blocks=last4, features=cls+mean); segmentation: setr_pup, linear "
              "or fpn, with options [default: linear; segmentation: by backbone].")  # fmt: skip
@click.option("--batch-size", type=int, help="Images per step [default: 64; segmentation: 8].")
@click.option("--lr", "learning_rate", type=float, help="Learning rate per 256 images [default: the method's].")
@click.option("--weight-decay", type=float, help="Weight decay of the optimizer [default: the method's].")
@click.option("--optimizer", type=click.Choice(["sgd", "adamw"]),
              help="Optimizer [default: the method's; segmentation: adamw].")  # fmt: skip
@click.option("--head-lr-scale", type=float, help="Learning rate of the head, relative to the rest's [default: 1].")
@click.option("--augment", type=click.Choice(["none", "flip", "random_crop", "random_resized_crop", "full"]),
              help="Segmentation: none, flip or full [default: none; segmentation: full].")  # fmt: skip
@click.option("--grad-accum-steps", type=int,
              help="Compute each step in this many micro-batches, to save memory [default: 1].")  # fmt: skip
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]),
              help="bf16: forward pass in bf16; auto: on GPUs with bf16 hardware [default: auto].")  # fmt: skip
@click.option(
    "--seed", type=int, help="Seed of initialization, order of images, augmentation and dropout [default: 0]."
)
@click.option("--train-on", type=click.Choice(["train", "trainval"]), default="train", show_default=True,
              help="trainval: validation images train too.")  # fmt: skip
@click.option("--val-fraction", type=float, default=0.2, show_default=True, help="Split off where val is missing.")
@click.option("--split-seed", type=int, help="Seed of the splits [default: --seed].")
@click.option("--image-size", type=int, help="Side in pixels, if not the backbone's own; positions are resized.")
@click.option("--save-dtype", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True,
              help="Data type in the tuned file; fp16 halves it.")  # fmt: skip
@device_option
@click.option("--overwrite", is_flag=True, help="Begin anew, whatever an earlier run left.")
@click.option("--logger", "logger_spec", help="Log to: tensorboard[:FOLDER], mlflow[:URI] or wandb[:PROJECT].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@_classification("--epochs", type=int, help="Passes over the training images [default: 100].")
@_classification("--warmup-epochs", type=float, help="Length of the warm-up [default: a tenth of the epochs].")
@_classification("--probe-epochs", type=int, help="First train the head alone, on frozen features [default: 0].")
@_classification("--probe-weight-decay", type=float, help="Weight decay of those epochs [default: 0.01].")
@_classification("--test-fraction", type=float, default=0.2, show_default=True, help="Split off where test is missing.")
@_classification("--train-fraction", type=float, default=1.0, show_default=True,
                 help="Train on this fraction of each class.")  # fmt: skip
@_classification("--resize", type=click.Choice(["squash", "crop"]), default="squash", show_default=True,
                 help="Squash images to a square, or crop their center.")  # fmt: skip
@_classification("--interpolation", type=click.Choice(["nearest", "bilinear", "bicubic", "lanczos"]),
                 help="Interpolation of resized images [default: the backbone's].")  # fmt: skip
@_classification("--cache", type=click.Path(path_type=Path, file_okay=False),
                 help="Keep decoded images and frozen features here.")  # fmt: skip
@_classification("--skip-corrupt", is_flag=True, help="Leave out unreadable images instead of refusing.")
@_segmentation("--iterations", type=int, help="Steps [default: 2000].")
@_segmentation("--eval-every", type=int, help="Steps between evaluations on val [default: 200].")
@_segmentation("--warmup-iterations", type=int, help="Length of the warm-up [default: 0].")
@_segmentation("--power", type=float, help="Exponent of the learning rate schedule [default: 0.9].")
@_segmentation("--loss", type=click.Choice(["ce", "dice", "ce+dice"]),
               help="Cross-entropy, Dice, or their sum [default: ce].")  # fmt: skip
@_segmentation("--class-weights", type=click.Choice(["none", "balanced"]),
               help="balanced: weight classes by median frequency [default: none].")  # fmt: skip
@_segmentation("--auxiliary-weight", type=float, help="Weight of the loss of auxiliary heads [default: 0.4].")
@labels_option
@ignore_index_option
@zero_label_option
@_segmentation("--val-as-test", is_flag=True, help="Score on val, and split another val off train.")
@_segmentation("--activation-checkpointing", is_flag=True, help="Less memory, a third more time.")
def command(
    data: str,
    out: Path | None,
    task: str,
    backbone: str | None,
    method: str,
    device: str,
    overwrite: bool,
    logger_spec: str | None,
    as_json: bool,
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
    vpt tune --config photos.run/run.toml --out again.safetensors
    """
    from vpt.api.progress import ConsoleCallback
    from vpt.backbones import DEFAULT
    from vpt.cli.option_groups import TaskOption
    from vpt.tasks.registry import find_task
    from vpt.training import distributed
    from vpt.training.loggers import log_job
    from vpt.tuning import make_job, run_job

    task = find_task(task, data).name
    own = options_of_task(task, data)
    grouped = {param.name for param in click.get_current_context().command.params if isinstance(param, TaskOption)}
    common = {name: value for name, value in options.items() if name not in grouped}
    job = make_job(data, out, task=task, method=method, backbone=backbone, **common, **own)
    with (
        ConsoleCallback() as console,
        log_job(console, logger_spec if distributed.rank() == 0 else None, job) as callback,
    ):
        if backbone is None and Path(data).is_dir():
            callback.on_note(
                f"the embedded backbone ({DEFAULT}) is small and meant for trying out; photos deserve a larger one, "
                "such as --backbone vit_base_patch16_224.augreg_in21k"
            )
        result = run_job(job, callback, overwrite=overwrite, device=device)
    if distributed.rank() != 0:
        return
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(result), indent=1))
    else:
        _print_summary(result)


def _print_summary(result: RunResult) -> None:
    from rich.console import Console
    from rich.table import Table

    from vpt.core.units import format_bytes, format_duration
    from vpt.tasks.registry import TASKS
    from vpt.training.run_directory import describe_outputs

    task, console = TASKS[result.task], Console(highlight=False)
    title = f"{result.data}, {result.eval_split}: {result.images[result.eval_split]} images"
    classes = Table("class", f"{task.class_metric}, %", title=title)
    for name, value in sorted(result.per_class.items(), key=lambda item: -1 if item[1] is None else item[1]):
        classes.add_row(name, task.nothing if value is None else f"{100 * value:.1f}")
    if len(result.per_class) <= _MAX_CLASSES:
        console.print(classes)
    (first, score), *others = result.eval_metrics.items()
    rest = "".join(f", {task.metrics[name]} {100 * value:.2f} %" for name, value in others)
    trained = f"{result.trainable_parameters:,} of {result.total_parameters:,} parameters"
    if result.head is not None and result.head_parameters is not None:
        trained += f": head {result.head_parameters:,}, method {result.trainable_parameters - result.head_parameters:,}"
    head = "" if result.head is None else f", {result.head}"
    lines = [
        (task.metrics[first], f"{100 * score:.2f} % on {result.eval_split}{rest}"),
        ("method", f"{result.method}{head} on {result.backbone}"),
        ("trained", f"{trained} ({100 * result.trainable_fraction:.2f} %)"),
        ("file", f"{result.file}, {format_bytes(result.file_bytes)}"),
        (
            "time",
            f"{format_duration(result.seconds)} of training, peak memory {format_bytes(result.peak_memory_bytes)}",
        ),
        ("more", describe_outputs(result.run_dir)),
        ("next", f"vpt predict {shlex.quote(result.file)} IMAGE"),
        ("", shlex.join(["vpt", "eval", result.file, result.job["data"], "--split", result.eval_split])),
    ]
    for name, text in lines:
        printable = text.encode("utf-8", "replace").decode()  # a path may hold bytes of no encoding
        console.print(f"{name:<9}{printable}", markup=False, soft_wrap=True)
