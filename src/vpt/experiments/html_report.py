"""The report as one HTML file: no script, no network, light or dark as the reader's system has it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape

from vpt.experiments.charts import bar_chart, scatter_plot, sparkline
from vpt.experiments.results import ExperimentResults
from vpt.experiments.significance import group_mean
from vpt.experiments.tables import MISSING, PROTOCOL_DESCRIPTION, Table

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1c; --soft: #666; --rule: #ddd; --up: #1a6fb5;
  --down: #b5531a; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181a; --ink: #e6e6e6; --soft: #a0a0a0; --rule: #3a3d40;
  --up: #62aee8; --down: #e8935f; } }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 72rem; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; } h3 { font-size: 1rem; margin: 0 0 .5rem; }
.note { color: var(--soft); max-width: 45rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--rule); padding: .3rem .7rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid var(--ink); } .word { text-align: left; }
td.long { white-space: normal; min-width: 16rem; overflow-wrap: anywhere; }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem; } .charts figure { flex: 1 1 18rem; max-width: 24rem; }
figure { margin: 0; } svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; }
.wide svg { min-width: 30rem; } .curves svg { width: 120px; }
.line { fill: none; stroke: var(--up); stroke-width: 1.5; opacity: .7; }
.ink { fill: var(--ink); } .rule { stroke: var(--rule); } .up, .dot { fill: var(--up); } .down { fill: var(--down); }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; overflow-wrap: anywhere; }
"""


def render_page(
    title: str, results: ExperimentResults, tables: Sequence[Table], provenance: Sequence[tuple[str, str]]
) -> str:
    """The whole page."""
    first, *rest = map(_section, tables)
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in provenance)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<p class="note">{escape(PROTOCOL_DESCRIPTION)}</p>\n'
        f"{first}{_differences(results)}{_parameters(results)}{''.join(rest)}{_curves(results)}"
        f"<section>\n<h2>Made with</h2>\n<dl>{facts}</dl>\n</section>\n</body>\n</html>\n"
    )


def _section(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        inside = ""
        for i, cell in enumerate(cells):
            kinds = " ".join(["word"] * (i < table.num_text_columns) + ["long"] * (len(cell) > 60))
            inside += f'<{tag} class="{kinds}">{escape(cell)}</{tag}>' if kinds else f"<{tag}>{escape(cell)}</{tag}>"
        return f"<tr>{inside}</tr>\n"

    head, body = row(table.header, "th"), "".join(row(cells, "td") for cells in table.rows)
    return (
        f"<section>\n<h2>{escape(table.title)}</h2>\n"
        f'<div class="scroll"><table>\n<thead>{head}</thead>\n<tbody>{body}</tbody>\n</table></div>\n'
        f'<p class="note">{escape(table.note)}</p>\n</section>\n'
    )


def _differences(results: ExperimentResults) -> str:
    """A chart for each method: its points above the baseline in every task."""
    points = {
        method: {task: 100 * value for task, value in results.differences(method).items()}
        for method in results.methods
        if results.differences(method)
    }
    if not points:
        return ""
    limit = max(abs(value) for values in points.values() for value in values.values())
    title = f"Points above {results.experiment.baseline}, task by task"
    figures = "".join(
        f"<figure><h3>{escape(method)}</h3>{bar_chart(f'{method}: {title}', values, limit)}</figure>\n"
        for method, values in points.items()
    )
    return f'<section>\n<h2>{escape(title)}</h2>\n<div class="charts">\n{figures}</div>\n</section>\n'


def _parameters(results: ExperimentResults) -> str:
    """Accuracy against trained parameters, for the methods whose every cell is there."""
    points = {}
    for method in results.methods:
        mean = group_mean(list(results.means(method).values()))
        trained = [
            cell.trainable_parameters for cell in results.cells_of(method) if cell.trainable_parameters is not None
        ]
        if mean is not None and trained:
            points[method] = (statistics.fmean(trained), 100 * mean)
    if not points:
        return ""
    title = "Accuracy against trained parameters"
    left_out = [method for method in results.methods if method not in points]
    note = "Means over all tasks." + (f" Left out, for cells are missing: {', '.join(left_out)}." if left_out else "")
    return (
        f'<section>\n<h2>{title}</h2>\n<figure class="scroll wide">{scatter_plot(title, points, results.metric)}</figure>\n'
        f'<p class="note">{escape(note)}</p>\n</section>\n'
    )


def _curves(results: ExperimentResults) -> str:
    """The training loss of every final run by epoch, a small chart for each cell; a task has one scale."""
    losses = {
        key: [[epoch["train_loss"] for epoch in record.history] for record in cell.final_records if record.history]
        for key, cell in results.cells.items()
    }
    if not any(losses.values()):
        return ""
    title = "Curves"
    header = "".join(f'<th class="word">{escape(name)}</th>' for name in ("task", *results.methods))
    body = ""
    for task in results.experiment.tasks:
        mine = {method: losses[task.name, method] for method in results.methods}
        high = max((loss for curves in mine.values() for curve in curves for loss in curve), default=1.0)
        charts = (
            sparkline(f"{task.name}, {method}: training loss", curves, 0.0, high) if curves else MISSING
            for method, curves in mine.items()
        )
        body += (
            f'<tr><td class="word">{escape(task.name)}</td>{"".join(f"<td>{chart}</td>" for chart in charts)}</tr>\n'
        )
    note = "Training loss of the final runs by epoch, a line for each seed; the charts of a task share a scale from 0."
    return (
        f'<section>\n<h2>{title}</h2>\n<div class="scroll curves"><table>\n<thead><tr>{header}</tr></thead>\n'
        f'<tbody>{body}</tbody>\n</table></div>\n<p class="note">{note}</p>\n</section>\n'
    )
