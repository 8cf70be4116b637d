"""The table of a paper: methods as rows, tasks and means of groups as columns; LaTeX, Markdown and HTML of the same."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vpt.core.text import begin_sentence, one_line, pluralize
from vpt.experiments.design import Protocol, Task
from vpt.experiments.reports import latex
from vpt.experiments.reports.cell_verdicts import judge_cells, summarize
from vpt.experiments.reports.table import MISSING
from vpt.experiments.results import Cell, ExperimentResults
from vpt.plots.pages import page_environment
from vpt.protocols import describe_protocol

_WIDE = 7  # columns of scores, above which a table takes both columns of a page
_SHRUNK = 12  # columns of scores, above which it is scaled to the page
_SHOWN_OPTIONS = ("backbone", "image_size", "train_fraction", "images_per_class")  # of a row, where they are its own
_TASK_OPTIONS = ("images_per_class", "train_on", "resize", "crop_fraction")  # of a task, where they are its own


@dataclass(frozen=True)
class Column:
    """A column of scores.

    Attributes:
        group: Group of the tasks; empty for tasks without one, and for the mean of all tasks.
        name: Name of the task, or "mean".
        tasks: The task, or the tasks that are averaged.
    """

    group: str
    name: str
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Score:
    """A score of the table.

    Attributes:
        text: Percentage with one decimal, or the sign for a missing value.
        rank: "best" of the column, "close" if it is within the spread of the best, or "other".
        mark: A dagger where a verdict speaks against it, else empty.
    """

    text: str
    rank: Literal["best", "close", "other"]
    mark: str


@dataclass(frozen=True)
class PaperTable:
    """The table of a paper.

    Attributes:
        name: Name of the experiment.
        caption: Metric, n, seeds, protocol, departures and date, in sentences; verdicts first.
        columns: The columns of scores, group by group.
        rows: Method and its scores.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Score, ...]], ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Each group with its number of columns, in their order."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found


def make_paper_table(results: ExperimentResults) -> PaperTable:
    """Return the table of a paper.

    Args:
        results: Results of the experiment.

    Returns:
        The table. A method without any score has no row.
    """
    columns, doubtful = tuple(_columns(results)), {(one.task, one.method) for one in judge_cells(results)}
    figures = {method: [_figure(results, method, column) for column in columns] for method in results.methods}
    scores: dict[str, list[Score]] = {method: [] for method in results.methods}
    for index, column in enumerate(columns):
        known = [found for row in figures.values() if (found := row[index]) is not None]
        best, spread = max(known, default=(0.0, 0.0))
        for method, row in figures.items():
            text, rank = _rank(row[index], best, spread)
            mark = " †" if any((task.name, method) in doubtful for task in column.tasks) else ""
            scores[method].append(Score(text, rank, mark))
    rows = tuple((method, tuple(row)) for method, row in scores.items() if any(one.text != MISSING for one in row))
    return PaperTable(results.experiment.name, _caption(results), columns, rows)


def own_options(task: Task, protocol: Protocol) -> str:
    """Return the options of the images of a task that are not those of the plan.

    Args:
        task: The task.
        protocol: Protocol of the plan.

    Returns:
        Such as "images per class 5, train on train"; empty where all are those of the plan.
    """
    values = {key: getattr(task, key) for key in _TASK_OPTIONS}
    own = {key: value for key, value in values.items() if value not in (None, getattr(protocol, key))}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in own.items())


def to_latex(table: PaperTable) -> str:
    """Return the table as LaTeX; it needs the package booktabs, and graphicx where it is scaled to the page."""
    num_columns = len(table.columns)
    environment = "table*" if num_columns > _WIDE else "table"
    shrunk = num_columns > _SHRUNK
    lines = [
        f"% needs the package booktabs{', and graphicx' if shrunk else ''}",
        f"\\begin{{{environment}}}",
        "\\centering",
        f"\\caption{{{latex.escape(table.caption)}}}",
        f"\\label{{tab:{latex.label(table.name)}}}",
        *(["\\resizebox{\\textwidth}{!}{%"] if shrunk else []),
        f"\\begin{{tabular}}{{l{'r' * num_columns}}}",
        "\\toprule",
        *_latex_groups(table),
        _latex_row(["", *(latex.escape(column.name) for column in table.columns)]),
        "\\midrule",
        *(_latex_row([latex.escape(method), *map(_latex_score, row)]) for method, row in table.rows),
        "\\bottomrule",
        "\\end{tabular}" + ("}" if shrunk else ""),
        f"\\end{{{environment}}}",
    ]
    return "".join(f"{line}\n" for line in lines)


def to_markdown(table: PaperTable) -> str:
    """Return the table as Markdown with its caption below."""
    signs = {"best": "**{}**", "close": "<u>{}</u>", "other": "{}"}
    header = ["method", *(f"{column.group}: {column.name}".removeprefix(": ") for column in table.columns)]
    rows = [[method, *(signs[one.rank].format(one.text) + one.mark for one in row)] for method, row in table.rows]
    lines = [_markdown_row(header), _markdown_row([":--", *["--:"] * len(table.columns)]), *map(_markdown_row, rows)]
    return "".join(f"{line}\n" for line in [*lines, "", one_line(table.caption)])


def to_html(table: PaperTable) -> str:
    """Return the table as an HTML element."""
    environment = page_environment("vpt.experiments")
    return environment.get_template("paper_table.html").render(table=table)


def _columns(results: ExperimentResults) -> Iterator[Column]:
    for group, tasks in results.groups.items():
        yield from (Column(group, task.name, (task,)) for task in tasks)
        if len(tasks) > 1:
            yield Column(group, "mean", tuple(tasks))
    if len(results.groups) > 1:
        yield Column("", "mean", results.experiment.tasks)


def _rank(
    figure: tuple[float, float] | None, best: float, spread: float
) -> tuple[str, Literal["best", "close", "other"]]:
    """Return the text of a mean and its rank; equal texts are equally good."""
    if figure is None:
        return MISSING, "other"
    text = f"{100 * figure[0]:.1f}"
    if text == f"{100 * best:.1f}":
        return text, "best"
    return text, "close" if figure[0] >= best - spread else "other"


def _figure(results: ExperimentResults, method: str, column: Column) -> tuple[float, float] | None:
    """Return the mean of a column and its spread: the standard deviation over seeds; None where a cell is missing."""
    cells: list[Cell] = [results.cells[task.name, method] for task in column.tasks]
    means = [cell.mean for cell in cells if cell.mean is not None]
    if len(means) < len(cells):
        return None
    variance = sum((cell.std or 0.0) ** 2 for cell in cells)
    return statistics.fmean(means), variance**0.5 / len(cells)


def _caption(results: ExperimentResults) -> str:
    experiment = results.experiment
    scored = (task.images.get("test") or task.images.get("val") for task in experiment.tasks)
    counts = sorted({count for count in scored if count})
    images = f", n = {counts[0]:,}{f' to {counts[-1]:,}' if counts[1:] else ''} images a task" if counts else ""
    dates = sorted(str(record.provenance["ended"])[:10] for record in results.records if record.provenance.get("ended"))
    named = [f"† {kind}: {cells}." for kind, cells in summarize(judge_cells(results))]
    seeds = experiment.protocol.seeds
    spread = " underlined: within one standard deviation of the best over seeds." if seeds > 1 else ""
    sentences = [
        *named,
        f"{begin_sentence(results.metric)} on {results.scored_split} in %{images}; mean of {pluralize(seeds, 'seed')}.",
        f"Best in bold{';' if spread else '.'}{spread}",
        f"Backbone: {experiment.backbone}.",
        *_differing_rows(results),
        *_differing_tasks(results),
        *_ensembles(results),
        *(describe_protocol(experiment.protocol_name, experiment.departures) or ["Protocol: that of the plan."]),
        *([f"Date: {dates[-1]}."] if dates else []),
    ]
    return " ".join(sentences)


def _differing_rows(results: ExperimentResults) -> list[str]:
    """Return a sentence on the rows whose backbone or images are not those of the plan; none without such rows."""
    experiment, found = results.experiment, []
    shared = {"backbone": experiment.backbone, **experiment.protocol.job_fields()}
    for row in experiment.methods:
        own = [f"{key.replace('_', ' ')} {row.job_options[key]}" for key in _SHOWN_OPTIONS
               if row.job_options.get(key, shared[key]) != shared[key]]  # fmt: skip
        if own:
            found.append(f"{row.name} ({', '.join(own)})")
    return [f"Rows with a backbone or images of their own: {', '.join(found)}."] if found else []


def _differing_tasks(results: ExperimentResults) -> list[str]:
    """Return a sentence on the tasks whose images are not used as the plan says; none without such tasks."""
    names = defaultdict[str, list[str]](list)
    for task in results.experiment.tasks:
        names[own_options(task, results.experiment.protocol)].append(task.name)
    found = [f"{', '.join(tasks)} ({options})" for options, tasks in names.items() if options]
    return [f"Tasks with options of their own: {'; '.join(found)}."] if found else []


def _ensembles(results: ExperimentResults) -> list[str]:
    """Return a sentence on each row whose score is not a mean over runs."""
    runs = pluralize(results.experiment.protocol.seeds, "run")
    rows = (row for row in results.experiment.methods if row.ensemble_of and not row.refusal)
    return [f"{row.name} is one model of the {runs} of {row.ensemble_of}, without a spread." for row in rows]


def _latex_groups(table: PaperTable) -> list[str]:
    """Return the row of group names over their columns, and the rules below them; none without groups."""
    if not any(name for name, _ in table.groups):
        return []
    names, rules, start = [""], [], 2
    for name, width in table.groups:
        names.append(f"\\multicolumn{{{width}}}{{c}}{{{latex.escape(name)}}}")
        if name:
            rules.append(f"\\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    return [_latex_row(names), " ".join(rules)]


def _latex_score(score: Score) -> str:
    signs = {"best": "\\textbf{%s}", "close": "\\underline{%s}", "other": "%s"}
    return signs[score.rank] % latex.escape(score.text) + ("$^\\dagger$" if score.mark else "")


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(one_line(cell).replace('|', chr(92) + '|') for cell in cells)} |"
