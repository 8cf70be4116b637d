"""`vpt eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt.cli.common_options import (
    backbone_option,
    device_option,
    flip_option,
    ignore_index_option,
    labels_option,
    scales_option,
    weights_option,
    zero_label_option,
)
from vpt.cli.option_groups import TaskCommand, options_of_task, task_option

if TYPE_CHECKING:
    from vpt.api.options import Device, SplitName


@click.command(name="eval", cls=TaskCommand)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("data")
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True, help="Split to measure."
)
@click.option(
    "--seed", type=click.IntRange(min=0), help="Seed for splitting DATA when it has no such split [default: FILE's]."
)
@backbone_option
@weights_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@task_option("classification", "--skip-corrupt", is_flag=True, help="Leave unreadable images out.")
@scales_option
@flip_option
@labels_option
@ignore_index_option
@zero_label_option
def command(
    file: Path,
    data: str,
    split: SplitName,
    seed: int | None,
    backbone: str | None,
    weights: Path | None,
    device: Device,
    as_json: bool,
    **_: Any,
) -> None:
    """Measure a tuned FILE on labeled images. DATA is what `vpt tune` takes.

    \b
    vpt eval photos.safetensors photos/
    """
    from vpt.api import evaluate
    from vpt.api.progress import ConsoleCallback
    from vpt.model.tuned_file import inspect
    from vpt.tasks.registry import task_of_file

    task = task_of_file(inspect(file))
    options = options_of_task(task.name, str(file))
    with ConsoleCallback() as callback:
        evaluation = evaluate(
            file, data, split=split, seed=seed, backbone=backbone, weights=weights, device=device, callback=callback,
            **options,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(evaluation.to_dict(), indent=1))
        return
    for name, value in evaluation.per_class.items():
        click.echo(f"{name:<24}" + (task.nothing if value is None else f"{task.class_metric} {100 * value:.1f} %"))
    metrics = ", ".join(f"{task.metrics[name]} {100 * value:.2f} %" for name, value in evaluation.metrics.items())
    click.echo(f"{metrics}, {evaluation.images} {split} images")
