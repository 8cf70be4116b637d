"""`vpt eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt.cli import options as common
from vpt.cli.options import TaskCommand, option, own_options, print_result

if TYPE_CHECKING:
    from vpt.experiments.table import Table
    from vpt.tasks.base import Task
    from vpt.tasks.evaluation import Evaluation


@click.command(cls=TaskCommand)
@click.argument("file", type=common.PATH)
@click.argument("data")
@common.split_option
@common.split_names_option
@option("--seed", "Seed for splitting DATA when it has no such split [default: FILE's].", common.NATURAL)
@option("--confusion", "Show the confusion matrix in counts, or in percent of each true class.", ["counts", "percent"])
@option("--out", "Picture of the confusion matrix, .png or .svg.", common.FILE)
@common.model_options
@common.json_option
@common.skip_corrupt_option
@common.table_options
@common.inference_options
@common.mask_options
def command(file: Path, data: str, as_json: bool, confusion: str | None, out: Path | None, **options: Any) -> None:
    """Measure a tuned FILE on labeled images. DATA is what `vpt tune` takes.

    A folder without such a split is measured whole, unless it holds images that FILE was trained on: then it is
    split as in training.

    \b
    vpt eval photos.safetensors photos/
    vpt eval photos.safetensors photos/ --confusion percent --out confusion.png
    """
    from vpt.api import evaluate
    from vpt.api.progress import ConsoleCallback
    from vpt.cli.console_table import print_table
    from vpt.model.tuned_file import inspect
    from vpt.plots.canvas import check_plot_path
    from vpt.tasks.drawing import draw_evaluation
    from vpt.tasks.registry import task_of_file

    if out is not None:
        check_plot_path(out)
    header = inspect(file)
    task = task_of_file(header)
    if confusion is not None and header.label_kind.name != "single_label":
        raise click.UsageError(f"--confusion: for one class for each image, and {file} is {header.label_kind.name}")
    with ConsoleCallback() as callback:
        evaluation = evaluate(file, data, callback=callback, **own_options(options, task.name, str(file)))
    unit = confusion or "counts"
    if out is not None:
        title = f"{file.stem} on {evaluation.split}"
        draw_evaluation(out, evaluation, header.classes or tuple(evaluation.per_class), title, unit=unit)
    values = evaluation.to_dict()
    if confusion is not None:
        values["confusion"] = evaluation.confusion_table(unit)
    if not as_json:
        if evaluation.per_class:
            print_table(_class_table(task, evaluation))
        if confusion is not None:
            print_table(_confusion_table(evaluation, unit))
    print_result(as_json, values, _summary(task, evaluation))


def _class_table(task: Task, evaluation: Evaluation) -> Table:
    """Return the scores of each class."""
    from vpt.core.text import printable
    from vpt.experiments.table import Table, format_percent

    header, rows = ["class", task.counted, "precision, %", "recall, %", "F1, %"], []
    support = evaluation.confusion.sum(1) if evaluation.scores is None else evaluation.scores.support
    for name, count in zip(evaluation.per_class, support.tolist(), strict=True):
        rates = evaluation.class_rates[name].values()
        rows.append([printable(name), f"{count:,}", *(format_percent(rate, digits=1) for rate in rates)])
    label = task.class_label(next(iter(evaluation.metrics)))
    if label != "top-1":  # which is the recall
        header.append(f"{label}, %")
        for row, value in zip(rows, evaluation.per_class.values(), strict=True):
            row.append(format_percent(value, digits=1))
    return Table("classes", "", tuple(header), tuple(map(tuple, rows)))


def _confusion_table(evaluation: Evaluation, unit: str) -> Table:
    """Return the confusion matrix, one row for each true class."""
    from vpt.core.text import printable
    from vpt.experiments.table import Table

    names = [printable(name) for name in evaluation.per_class]
    text = "{:.1f}" if unit == "percent" else "{:,}"
    cells = [[text.format(value) for value in row] for row in evaluation.confusion_table(unit)]
    header = ("true \\ predicted" + (", %" if unit == "percent" else ""), *names)
    return Table("confusion", "", header, tuple((name, *row) for name, row in zip(names, cells, strict=True)))


def _summary(task: Task, evaluation: Evaluation) -> list[str]:
    """Return the scores of all classes together, one a line."""
    from vpt.training.evaluation import PLAIN_METRICS, format_metric

    metrics = ", ".join(f"{task.metrics[name]} {format_metric(name, x)}" for name, x in evaluation.metrics.items())
    macro = ", ".join(f"{name} {100 * value:.2f} %" for name, value in evaluation.macro.items())
    lines = [f"{metrics}, {evaluation.images} {evaluation.split} images"]
    lines += [f"macro {macro}"] if macro else []
    over = "" if evaluation.groups is None else f", over {evaluation.groups} groups"
    for name, (low, high) in evaluation.intervals.items():
        bounds = f"{low:.4g} to {high:.4g}" if name in PLAIN_METRICS else f"{100 * low:.1f} to {100 * high:.1f} %"
        bounds += over
        lines.append(f"95 % interval of {task.metrics.get(name, 'macro F1')}: {bounds}")
    if evaluation.calibration_error is not None:
        lines.append(f"calibration error {100 * evaluation.calibration_error:.2f} %")
    return lines
