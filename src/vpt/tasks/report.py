"""The report of one model as one HTML file: no script, no network, light or dark as the reader's system is set.

Names from a user's disk are text: the template escapes them.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from vpt.core.io import write_atomic
from vpt.core.metrics import format_metric
from vpt.core.text import printable
from vpt.data.tables.columns import TableColumns
from vpt.plots import run_charts
from vpt.plots.pages import data_uri, page_environment
from vpt.tasks.base import Task
from vpt.tasks.evaluation import Evaluation
from vpt.tasks.search_rows import search_table
from vpt.training.job import Job
from vpt.training.run_directory import repeat_command
from vpt.training.verdicts import Verdict

_MAX_CONFUSION, _MAX_PAIRS = 20, 8  # classes of a matrix, and pairs of classes that are named
_WEAK = 0.1  # below the mean of the classes
_UNCALIBRATED = 0.05
_DATA_OPTIONS = (
    *(column.name for column in fields(TableColumns)), "split_names", "value_range", "labels", "ignore_index",
    "reduce_zero_label", "images", "masks", "mask_suffix", "mask_orientation",
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """The contents of a report besides the scores.

    Attributes:
        title: Title of the page.
        file: The tuned file.
        check: Command that checks the data; empty where they are no files.
        facts: Names and values of the last section.
        history: Metrics of each epoch. Default: none.
        xlabel: Label of the horizontal axis of the curves. Default: "epoch".
        examples: Name of a class -> training images, uint8 (height, width, 3). Default: none.
        search: The search that chose the model, as in `RunResult.search`. Default: none.
        verdicts: Verdicts on the run. Default: none.
        job: The job whose training is shown. Default: none, so that no other training is advised.
    """

    title: str
    file: str
    check: str
    facts: Sequence[tuple[str, str]]
    history: Sequence[Mapping[str, Any]] = ()
    xlabel: str = "epoch"
    examples: Mapping[str, Sequence[NDArray[np.uint8]]] = field(default_factory=dict)
    search: Mapping[str, Any] | None = None
    verdicts: Sequence[Verdict] = ()
    job: Job | None = None


def write_report(path: Path, report: Report, evaluation: Evaluation, task: Task) -> None:
    """Write a report.

    Args:
        path: The HTML file.
        report: What the page shows besides the scores.
        evaluation: The scores.
        task: The task.
    """
    environment = page_environment("vpt.tasks")
    environment.filters |= {"uri": data_uri, "visible": printable}
    first = next(iter(evaluation.metrics))
    page = environment.get_template("report.html").render(
        report=report,
        evaluation=evaluation,
        task=task,
        score=format_metric(first, evaluation.metrics[first]),
        metric=task.metrics.get(first, first),
        interval=_interval(evaluation, first),
        others=[(task.metrics[n], format_metric(n, v)) for n, v in evaluation.metrics.items() if n != first],
        charts=_charts(report, evaluation, task.metrics),
        class_label=task.class_label(first),
        classes=_class_rows(evaluation),
        matrix=_matrix(evaluation),
        pairs=_confused_pairs(evaluation),
        pictures=evaluation.pictures(),
        tried=None if report.search is None else search_table(report.search),
        steps=next_steps(report, evaluation, task),
    )
    write_atomic(path, page.encode())


def next_steps(report: Report, evaluation: Evaluation, task: Task) -> list[tuple[str, str]]:
    """Return what to do next, as texts with a command or nothing.

    Args:
        report: The contents of the report.
        evaluation: The scores.
        task: The task.

    Returns:
        Pairs of a text and a command, which may be empty.
    """
    steps, known = [], {name: value for name, value in evaluation.per_class.items() if value is not None}
    if evaluation.split != "test":
        text = f"The score is of {evaluation.split} images. Measure the model on labeled images that it has not seen."
        steps.append((text, shlex.join(["vpt", "eval", report.file, "FOLDER"])))
    weakest = min(known, key=known.__getitem__, default="")
    if known and known[weakest] < np.mean(list(known.values())) - _WEAK:
        confused = [pair for pair in _confused_pairs(evaluation) if pair[0] == weakest]
        taken = f", most often taken for {confused[0][1]}" if confused else ""
        text = f"The weakest class is {weakest} ({100 * known[weakest]:.1f} %{taken}). Look at its images and labels."
        steps.append((text, report.check))
    if report.job is not None and isinstance(report.job.data, str):
        steps += _training_steps(report, report.job, evaluation)
    steps.append(("Use the model.", shlex.join(["vpt", "predict", report.file, "IMAGE"])))
    return steps


def check_command(data: str, options: Mapping[str, Any]) -> str:
    """Return the command that checks data as a command with these options reads them.

    Args:
        data: Folder, tables of labels, or name of the data.
        options: Options of that command by name.

    Returns:
        The command, or nothing for data that are no files.
    """
    if not all(Path(part).exists() for part in data.split(",")):
        return ""
    given = {name: options.get(name) for name in _DATA_OPTIONS}
    chosen = {f"--{name.replace('_', '-')}": x for name, x in given.items() if x not in (None, False, "auto")}
    words = [word for flag, x in chosen.items() for word in ([flag] if x is True else [flag, str(x)])]
    return shlex.join(["vpt", "data", "check", data, *words])


def _training_steps(report: Report, job: Job, evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return the steps that train again."""
    steps, error, length = [], evaluation.calibration_error, job.config.to_dict()
    has_val = any(epoch["val_metric"] is not None for epoch in report.history)
    if error is not None and error > _UNCALIBRATED and has_val and getattr(job.options, "calibrate", None) is False:
        text = f"Probabilities are {100 * error:.1f} points off on average. Fit their temperature on val images."
        steps.append((text, repeat_command(job, "--calibrate")))
    if any(verdict.kind == "not converged" for verdict in report.verdicts):
        name = "epochs" if "epochs" in length else "iterations"
        steps.append(
            ("Training had not converged. Train longer.", repeat_command(job, f"--{name}", str(2 * length[name])))
        )
    return steps


def _interval(evaluation: Evaluation, metric: str) -> str:
    bounds = evaluation.intervals.get(metric)
    return "" if bounds is None else " to ".join(format_metric(metric, bound) for bound in bounds)


def _charts(report: Report, evaluation: Evaluation, labels: Mapping[str, str]) -> list[tuple[str, Markup]]:
    """Return the charts with their headings."""
    charts = [
        (heading, Markup(svg)) for heading, svg in run_charts.history_charts(report.history, labels, report.xlabel)
    ]
    if evaluation.scores is not None and evaluation.scores.bins is not None and evaluation.scores.bins[:, 0].any():
        heading = "Reliability of the confidence"
        charts.append((heading, Markup(run_charts.reliability_diagram(heading, evaluation.scores.bins))))
    return charts


def _class_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the figures of each class, in percent."""
    support = [0] * len(evaluation.per_class) if evaluation.scores is None else evaluation.scores.support.tolist()
    rates = evaluation.class_rates
    return [
        {
            "name": name,
            "count": count,
            "score": None if value is None else 100 * value,
            "rates": [None if rate is None else 100 * rate for rate in rates.get(name, {}).values()],
        }
        for (name, value), count in zip(evaluation.per_class.items(), support, strict=True)
    ]


def _matrix(evaluation: Evaluation) -> list[list[tuple[int, float]]]:
    """Return counts and shares of the row in percent; nothing for many classes."""
    counts = evaluation.confusion
    if not 0 < len(counts) <= _MAX_CONFUSION:
        return []
    shares = 100 * counts / np.maximum(1, counts.sum(1, keepdims=True))
    return [list(zip(*row, strict=True)) for row in zip(counts.tolist(), shares.tolist(), strict=True)]


def _confused_pairs(evaluation: Evaluation) -> list[tuple[str, str, float]]:
    """Return pairs of a true and a predicted class, with the share of the true class in percent, largest first."""
    names, counts = list(evaluation.per_class), evaluation.confusion
    if not counts.size:
        return []
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_PAIRS]
    found = [divmod(int(index), len(counts)) for index in order]
    return [(names[i], names[j], 100 * wrong[i, j] / counts[i].sum()) for i, j in found if wrong[i, j]]
