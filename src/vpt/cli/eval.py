"""`vpt eval`."""

from pathlib import Path
from typing import Any

import click

from vpt.cli import options as common
from vpt.cli.options import TaskCommand, option, own_options, print_result


@click.command(cls=TaskCommand)
@click.argument("file", type=common.PATH)
@click.argument("data")
@common.split_option
@common.split_names_option
@option("--seed", "Seed for splitting DATA when it has no such split [default: FILE's].", common.NATURAL)
@common.model_options
@common.json_option
@common.skip_corrupt_option
@common.inference_options
@common.mask_options
def command(file: Path, data: str, as_json: bool, **options: Any) -> None:
    """Measure a tuned FILE on labeled images. DATA is what `vpt tune` takes.

    A folder without such a split is measured whole, unless it holds images that FILE was trained on: then it is
    split as in training.

    \b
    vpt eval photos.safetensors photos/
    """
    from vpt.api import evaluate
    from vpt.api.progress import ConsoleCallback
    from vpt.core.text import printable
    from vpt.model.tuned_file import inspect
    from vpt.tasks.registry import task_of_file

    task = task_of_file(inspect(file))
    with ConsoleCallback() as callback:
        evaluation = evaluate(file, data, callback=callback, **own_options(options, task.name, str(file)))
    lines = [
        f"{printable(name):<24}" + (task.nothing if value is None else f"{task.class_metric} {100 * value:.1f} %")
        for name, value in evaluation.per_class.items()
    ]
    metrics = ", ".join(f"{task.metrics[name]} {100 * value:.2f} %" for name, value in evaluation.metrics.items())
    lines.append(f"{metrics}, {evaluation.images} {evaluation.split} images")
    print_result(as_json, evaluation.to_dict(), lines)
