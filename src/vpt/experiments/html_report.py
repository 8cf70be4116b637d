"""The report as one HTML file: no script, no network, light or dark as the reader's system is set."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from vpt.experiments.provenance import PROTOCOL_DESCRIPTION
from vpt.experiments.results import ExperimentResults
from vpt.experiments.significance import group_mean
from vpt.experiments.table import MISSING, Table
from vpt.plots.inline_svg import difference_bars, labeled_scatter, sparkline

_Charts = list[tuple[str, Any]]


def render_page(
    title: str, results: ExperimentResults, tables: Sequence[Table], facts: Sequence[tuple[str, str]]
) -> str:
    """Return the report as an HTML page.

    Args:
        title: Title of the page.
        results: Results of the experiment.
        tables: Tables in their order; charts follow the first one.
        facts: Names and values of the last section.

    Returns:
        The report as an HTML page.
    """
    environment = Environment(loader=PackageLoader("vpt.experiments"), autoescape=True, keep_trailing_newline=True)
    return environment.get_template("report.html").render(
        title=title,
        protocol=PROTOCOL_DESCRIPTION,
        tables=tables,
        methods=results.methods,
        differences_title=_differences_title(results),
        differences=_differences(results),
        scatter=_scatter(results),
        curves=_curves(results),
        facts=facts,
    )


def _differences_title(results: ExperimentResults) -> str:
    return f"Points above {results.experiment.baseline}, task by task"


def _differences(results: ExperimentResults) -> _Charts:
    """Return a chart for each method: its points above the baseline in every task."""
    points = {
        method: {task: 100 * value for task, value in results.differences(method).items()}
        for method in results.methods
        if results.differences(method)
    }
    limit = max((abs(value) for values in points.values() for value in values.values()), default=0.0)
    title = _differences_title(results)
    return [(method, Markup(difference_bars(f"{method}: {title}", values, limit))) for method, values in points.items()]


def _scatter(results: ExperimentResults) -> dict[str, str] | None:
    """Return the chart of accuracy against trained parameters, for the methods without a missing cell."""
    points = {}
    for method in results.methods:
        mean = group_mean(list(results.means(method).values()))
        trained = [
            cell.trainable_parameters for cell in results.cells_of(method) if cell.trainable_parameters is not None
        ]
        if mean is not None and trained:
            points[method] = (statistics.fmean(trained), 100 * mean)
    if not points:
        return None
    left_out = [method for method in results.methods if method not in points]
    title = "Accuracy against trained parameters"
    note = "Means over all tasks." + (f" Not shown, as cells are missing: {', '.join(left_out)}." if left_out else "")
    return {"title": title, "chart": Markup(labeled_scatter(title, points, results.metric)), "note": note}


def _curves(results: ExperimentResults) -> list[tuple[str, list[Any]]]:
    """Return the training loss of every final run by epoch, a chart for each cell; a task has one scale."""
    losses = {
        key: [[epoch["train_loss"] for epoch in record.history] for record in cell.final_records if record.history]
        for key, cell in results.cells.items()
    }
    if not any(losses.values()):
        return []
    rows = []
    for task in results.experiment.tasks:
        curves_of = {method: losses[task.name, method] for method in results.methods}
        high = max((loss for curves in curves_of.values() for curve in curves for loss in curve), default=1.0)
        charts = [
            Markup(sparkline(f"{task.name}, {method}: training loss", curves, 0.0, high)) if curves else MISSING
            for method, curves in curves_of.items()
        ]
        rows.append((task.name, charts))
    return rows
