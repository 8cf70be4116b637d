"""`vpt eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from vpt.cli import options as common
from vpt.cli.options import TaskCommand, option, own_options, print_result
from vpt.cli.paths import FILE, PATH, TUNED_FILE

if TYPE_CHECKING:
    from vpt.experiments.reports.table import Table
    from vpt.tasks.base import Task
    from vpt.tasks.evaluation import Evaluation


@click.command(cls=TaskCommand)
@click.argument("file", type=TUNED_FILE)
@click.argument("data")
@common.split_option
@common.split_names_option
@option("--split-seed", "Seed for splitting DATA, if it has no such split [default: that of FILE].", common.NATURAL)
@option("--confusion", "Show the confusion matrix in counts, or in percent of each true class.", ["counts", "percent"])
@option("--out", "File for a report (.html), or for a picture of the confusion matrix (.png or .svg).", FILE)
@common.model_options
@common.json_option
@common.events_option
@common.min_confidence_option
@common.classification("--foreign", "Folder of images of none of the classes, which select the confidence threshold.",
                       PATH)  # fmt: skip
@common.classification(
    "--false-accept", "Fraction of the --foreign images that may be accepted [default: 0.05].", float
)
@common.skip_corrupt_option
@common.loading_options(common.classification)
@common.table_options
@common.inference_options
@common.mask_options
def command(
    file: Path,
    data: str,
    as_json: bool,
    events: Path | None,
    confusion: str | None,
    out: Path | None,
    **options: Any,
) -> None:
    """Measure a tuned FILE on labeled images. DATA is what `vpt tune` takes.

    A folder without the split is measured whole. If it contains images that FILE was trained on, it is split as in
    training instead.

    \b
    vpt eval photos.safetensors photos/
    vpt eval photos.safetensors photos/ --confusion percent --out confusion.png
    vpt eval photos.safetensors photos/ --out report.html
    """
    from vpt.api.evaluating import evaluate
    from vpt.api.outputs import require_other_files, require_outside_data
    from vpt.api.progress import ConsoleCallback
    from vpt.cli.console_table import print_table
    from vpt.data.tables.columns import TableColumns
    from vpt.model.tuned_file import read_header
    from vpt.plots.canvas import check_plot_path
    from vpt.tasks.drawing import draw_evaluation
    from vpt.tasks.registry import task_of_file
    from vpt.tasks.report import Report, check_command, write_report
    from vpt.training.callbacks import CallbackList
    from vpt.training.events import open_events

    if out is not None:
        check_plot_path(out, ".html")
        require_other_files([out], [file, options["weights"]])
        require_outside_data([out], data, TableColumns.of(options))
    is_report = out is not None and out.suffix.casefold() == ".html"
    header = read_header(file)
    task = task_of_file(header)
    if confusion is not None and header.label_kind.name != "single_label":
        raise click.UsageError(f"--confusion: for one class for each image, and {file} is {header.label_kind.name}")
    context = click.get_current_context()
    for name in ("labels", "reduce_zero_label", "mask_orientation"):  # FILE records those of its training
        if context.get_parameter_source(name) is ParameterSource.DEFAULT:
            del options[name]
    options = own_options(options, task.name, str(file))
    with ConsoleCallback() as console, open_events(events) as event_writer:
        evaluation = evaluate(file, data, pictures=is_report, callback=CallbackList([console, event_writer]), **options)
    unit = confusion or "counts"
    values = evaluation.to_dict()
    if confusion is not None:
        values["confusion"] = evaluation.confusion_table(unit)
    if not as_json:
        if evaluation.per_class:
            print_table(_class_table(task, evaluation))
        if confusion is not None:
            print_table(_confusion_table(evaluation, unit))
    print_result(as_json, values, _summary(task, evaluation))
    if out is None:  # the scores are printed first, as a page or a picture can fail
        return
    if is_report:
        facts = [("file", str(file)), ("data", data), ("method", header.method), ("backbone", header.backbone)]
        contents = Report(f"{file.stem} on {data}", str(file), check_command(data, options), facts)
        write_report(out, contents, evaluation, task)
    else:
        title = f"{file.stem} on {evaluation.split}"
        draw_evaluation(out, evaluation, header.classes or tuple(evaluation.per_class), title, unit=unit)


def _class_table(task: Task, evaluation: Evaluation) -> Table:
    """Return the scores of each class."""
    from vpt.core.text import printable
    from vpt.experiments.reports.table import Table, format_percent

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
    from vpt.experiments.reports.table import Table

    names = [printable(name) for name in evaluation.per_class]
    text = "{:.1f}" if unit == "percent" else "{:,}"
    cells = [[text.format(value) for value in row] for row in evaluation.confusion_table(unit)]
    header = ("true \\ predicted" + (", %" if unit == "percent" else ""), *names)
    return Table("confusion", "", header, tuple((name, *row) for name, row in zip(names, cells, strict=True)))


def _summary(task: Task, evaluation: Evaluation) -> list[str]:
    """Return the scores of all classes together, one a line."""
    from vpt.core.metrics import PLAIN_METRICS, format_metric
    from vpt.core.text import format_number
    from vpt.tasks.classification.rejection import describe_rejection

    metrics = ", ".join(f"{task.metrics[name]} {format_metric(name, x)}" for name, x in evaluation.metrics.items())
    macro = ", ".join(f"{name} {100 * value:.2f} %" for name, value in evaluation.macro.items())
    lines = [f"{metrics}, {evaluation.images} {evaluation.split} images"]
    lines += [f"macro {macro}"] if macro else []
    over = "" if evaluation.groups is None else f", over {evaluation.groups} groups"
    for name, (low, high) in evaluation.intervals.items():
        if name in PLAIN_METRICS:
            bounds = f"{format_number(low)} to {format_number(high)}"
        else:
            bounds = f"{100 * low:.1f} to {100 * high:.1f} %"
        lines.append(f"95 % interval of {task.metrics.get(name, 'macro F1')}: {bounds}{over}")
    if evaluation.calibration_error is not None:
        lines.append(f"calibration error {100 * evaluation.calibration_error:.2f} %")
    if evaluation.rejection is not None:
        lines += describe_rejection(evaluation.rejection)
    return [*lines, *evaluation.notes]
