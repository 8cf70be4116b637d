"""`vpt eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


@click.command(name="eval", cls=TaskCommand)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
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
    split: str,
    seed: int | None,
    backbone: str | None,
    weights: Path | None,
    device: str,
    as_json: bool,
    **_: Any,
) -> None:
    """Measure a tuned FILE on labeled images. DATA is what `vpt tune` takes.

    \b
    vpt eval photos.safetensors photos/
    """
    from vpt.cli.tuned_files import load_tuned_model
    from vpt.model.tuned_file import inspect
    from vpt.tasks.registry import task_of_file
    from vpt.training.progress import ConsoleCallback

    header = inspect(file)
    task = task_of_file(header)
    options = options_of_task(task.name, str(file))
    split_options = {**header.split_options} if seed is None else {**header.split_options, "seed": seed}
    model = load_tuned_model(file, backbone, weights, device)
    with ConsoleCallback() as callback:
        evaluation = task.evaluate(model, data, split, split_options, options, callback)
    if as_json:
        click.echo(json.dumps(evaluation.to_dict(), indent=1))
        return
    for name, value in evaluation.per_class.items():
        click.echo(f"{name:<24}" + (task.nothing if value is None else f"{task.class_metric} {100 * value:.1f} %"))
    metrics = ", ".join(f"{task.metrics[name]} {100 * value:.2f} %" for name, value in evaluation.metrics.items())
    click.echo(f"{metrics}, {evaluation.images} {split} images")
