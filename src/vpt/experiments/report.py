"""The report of an experiment: report.html, report.md, and every table as CSV and LaTeX.

The page is one HTML file: no script, no network, light or dark as the reader's system is set.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from vpt.core.io import write_atomic
from vpt.core.text import pluralize
from vpt.experiments.results import ExperimentResults, load_results
from vpt.experiments.significance import group_mean
from vpt.experiments.store import Store
from vpt.experiments.table import MISSING, Table, to_csv, to_document, to_latex
from vpt.experiments.tables import PROTOCOL_DESCRIPTION, build_tables
from vpt.plots.inline_svg import difference_bars, labeled_scatter, sparkline


def write_report(folder: Path, out: Path, *others: Path) -> list[Path]:
    """Write the report of an experiment, finished or not, or of several of one protocol side by side.

    Args:
        folder: Folder of the experiment.
        out: Folder of the report.
        *others: Folders of other experiments.

    Returns:
        The files that were written, report.html first.

    Raises:
        DataError: A folder holds no experiment, or they cannot be compared.
    """
    results = load_results(*map(Store, (folder, *others)))
    tables, facts, title = build_tables(results), provenance(results), results.experiment.name
    document = to_document(title, PROTOCOL_DESCRIPTION, tables, facts)
    texts = {"report.html": render_page(title, results, tables, facts), "report.md": document}
    for table in tables:
        texts[f"{table.name}.csv"] = to_csv(table.header, table.rows)
        texts[f"{table.name}.tex"] = to_latex(table)
    for name, text in texts.items():
        write_atomic(out / name, text.encode())
    return [out / name for name in texts]


def provenance(results: ExperimentResults) -> Sequence[tuple[str, str]]:
    """Return the conditions of the runs as names and values.

    Args:
        results: Results of the experiment.

    Returns:
        The conditions of the runs as names and values.
    """
    experiment, protocol = results.experiment, results.experiment.protocol
    machines = dict.fromkeys(_machine(record.provenance) for record in results.records if record.provenance)
    size = f"{protocol.image_size} px, " if protocol.image_size else ""
    crop = "" if protocol.crop_fraction is None else f", crop fraction: {protocol.crop_fraction:g}"
    interpolation = protocol.interpolation or "that of the backbone"
    lines = [
        ("backbone", f"{experiment.backbone}, {experiment.parameters:,} parameters, {experiment.fingerprint}"),
        ("images", f"{size}{protocol.resize}{crop}, interpolation: {interpolation}"),
        ("normalization", protocol.normalization),
        *([] if protocol.value_range is None else [("value range", protocol.value_range)]),
        ("runs", f"{len(results.records)}, of which {sum(r.status == 'done' for r in results.records)} are done"),
        *(("machine", machine) for machine in machines),
    ]
    if protocol.images_per_class is not None:
        lines.append(("training images", f"at most {protocol.images_per_class} of each class"))
    if protocol.train_fraction < 1:
        lines.append(("training images", f"{protocol.train_fraction:.0%} of each class"))
    for task in experiment.tasks:
        counts = ", ".join(f"{split} {count:,}" for split, count in task.images.items())
        lines += [(task.name, f"{task.classes} classes; {counts}"), *((task.name, note) for note in task.notes)]
    return lines


def _machine(found: Mapping[str, Any]) -> str:
    versions = (f"{name} {version}" for name, version in found["versions"].items())
    counts = (pluralize(found["cores"], "core"), pluralize(found["threads"], "thread"))
    return "; ".join((found["processor"], *counts, *found["gpus"], *versions))


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
    title_of_differences = f"Points above {results.experiment.baseline}, task by task"
    return environment.get_template("report.html").render(
        title=title,
        protocol=PROTOCOL_DESCRIPTION,
        tables=tables,
        methods=results.methods,
        differences_title=title_of_differences,
        differences=_differences(results, title_of_differences),
        scatter=_scatter(results),
        curves=_curves(results),
        facts=facts,
    )


def _differences(results: ExperimentResults, title: str) -> list[tuple[str, Markup]]:
    """Return a chart for each method: its points above the baseline in every task."""
    differences = {method: results.differences(method) for method in results.methods}
    limit = max((abs(value) for values in differences.values() for value in values.values()), default=0.0)
    points = {method: {task: 100 * value for task, value in values.items()} for method, values in differences.items()}
    return [(method, Markup(difference_bars(f"{method}: {title}", values, 100 * limit)))
            for method, values in points.items() if values]  # fmt: skip


def _scatter(results: ExperimentResults) -> dict[str, str] | None:
    """Return the chart of accuracy against trained parameters, for the methods without a missing cell."""
    points = {}
    for method in results.methods:
        mean, trained = group_mean(list(results.means(method).values())), results.mean_trainable(method)
        if mean is not None and trained is not None:
            points[method] = (trained, 100 * mean)
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
