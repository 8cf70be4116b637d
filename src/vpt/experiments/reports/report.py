"""The report of an experiment: report.html, report.md, every table as CSV and LaTeX, and the table of a paper.

The page is one HTML file: no script, no network, light or dark as the reader's system is set.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vpt.core.io import write_atomic
from vpt.core.text import format_number, pluralize
from vpt.experiments.reports.cell_verdicts import judge_cells, summarize
from vpt.experiments.reports.paper_table import make_paper_table, own_options
from vpt.experiments.reports.paper_table import to_html as to_paper_html
from vpt.experiments.reports.paper_table import to_latex as to_paper_latex
from vpt.experiments.reports.paper_table import to_markdown as to_paper_markdown
from vpt.experiments.reports.table import MISSING, Table, to_csv, to_document, to_latex
from vpt.experiments.reports.tables import PROTOCOL_DESCRIPTION, TABLE_NAMES, build_tables
from vpt.experiments.results import ExperimentResults, load_results
from vpt.experiments.significance import group_mean
from vpt.experiments.store import Store
from vpt.plots.inline_svg import difference_bars, labeled_scatter, sparkline
from vpt.plots.pages import page_environment


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
    verdicts = "".join(f"- **{kind}**: {cells}\n" for kind, cells in summarize(judge_cells(results)))
    document = to_document(title, f"{verdicts}\n{PROTOCOL_DESCRIPTION}".lstrip(), tables, facts)
    texts = {"report.html": render_page(title, results, tables, facts), "report.md": document}
    paper = make_paper_table(results)
    if paper.rows:
        texts |= {"paper.tex": to_paper_latex(paper), "paper.md": to_paper_markdown(paper)}
        texts["paper.html"] = to_paper_html(paper)
    for table in tables:
        texts[f"{table.name}.csv"] = to_csv(table.header, table.rows)
        texts[f"{table.name}.tex"] = to_latex(table)
    if (out / "report.html").exists():  # of an earlier report, some of whose tables may be empty now
        own = {f"{table}.{suffix}" for table in TABLE_NAMES for suffix in ("csv", "tex")}
        for name in (own | {"paper.tex", "paper.md", "paper.html"}) - texts.keys():
            (out / name).unlink(missing_ok=True)
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
        facts = filter(None, (f"{task.classes} classes", counts, own_options(task, protocol)))
        lines += [(task.name, "; ".join(facts)), *((task.name, note) for note in task.notes)]
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
    environment = page_environment("vpt.experiments")
    title_of_differences = f"Points above {results.experiment.baseline}, task by task"
    return environment.get_template("report.html").render(
        title=title,
        verdicts=summarize(judge_cells(results)),
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
    texts = {row.name: row.settings[0].spec for row in results.experiment.methods if row.settings}
    return {"title": title, "chart": Markup(labeled_scatter(title, points, results.metric, texts)), "note": note}


def _curves(results: ExperimentResults) -> list[tuple[str, list[Any]]]:
    """Return the training loss of every final run by epoch, a chart for each cell with its own scale and range."""
    losses = {
        key: [[epoch["train_loss"] for epoch in record.history] for record in cell.final_records if record.history]
        for key, cell in results.cells.items()
    }
    if not any(losses.values()):
        return []
    rows = []
    for task in results.experiment.tasks:
        curves_of = {method: losses[task.name, method] for method in results.methods}
        charts = [
            (_curve_chart(f"{task.name}, {method}: training loss", curves) if curves else (MISSING, ""))
            for method, curves in curves_of.items()
        ]
        rows.append((task.name, charts))
    return rows


def _curve_chart(title: str, curves: Sequence[Sequence[float]]) -> tuple[Markup, str]:
    """Return a chart of losses, which are comparable within a cell alone, and its range."""
    high = max(loss for curve in curves for loss in curve)
    return Markup(sparkline(title, curves, 0.0, high)), f"0 to {format_number(high)}"
