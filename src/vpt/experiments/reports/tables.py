"""The tables of a report. Their titles and notes are in the TOML file beside this one."""

import statistics
import tomllib
from collections.abc import Iterable
from pathlib import Path

from vpt.core.text import begin_sentence, one_line
from vpt.experiments.reports.cell_verdicts import judge_cells, summarize
from vpt.experiments.reports.published import describe_published, published_scores
from vpt.experiments.reports.table import MISSING, Table, format_mean_std, format_percent
from vpt.experiments.results import Cell, ExperimentResults
from vpt.experiments.significance import group_mean, welch, wilcoxon
from vpt.experiments.store import Record
from vpt.methods.registry import parse_method
from vpt.protocols import describe_protocol

_TEXTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
PROTOCOL_DESCRIPTION: str = _TEXTS["protocol"]
TABLE_NAMES = tuple(name for name, text in _TEXTS.items() if isinstance(text, dict))
Row = tuple[str, ...]
_FEWEST_TASKS = 6  # of a test over tasks: with five, no p is below 0.03
_OF_CELLS = ("main", "tasks", "published", "tests")  # tables whose figures are scores of cells


def build_tables(results: ExperimentResults) -> list[Table]:
    """Return all tables that have rows.

    Args:
        results: Results of the experiment.

    Returns:
        All tables that have rows.
    """
    comparisons = (main_table, departures_table, per_task_table, verdicts_table, published_table, significance_table)
    tables = (make(results) for make in (*comparisons, settings_table, cost_table, failures_table))
    return [table for table in tables if table.rows]


def _make_table(
    name: str,
    results: ExperimentResults,
    header: Iterable[str],
    rows: Iterable[Row],
    texts: int = 1,
    note: str = "note",
) -> Table:
    """Return a table with its title and note."""
    experiment, metric, source = results.experiment, results.metric, describe_published(results.experiment)
    values = {"metric": metric, "Metric": begin_sentence(metric), "baseline": experiment.baseline,
              "num_tasks": len(experiment.tasks), "seeds": experiment.protocol.seeds, "source": source,
              "split": results.scored_split}  # fmt: skip
    title, text = (_TEXTS[name][key].format(**values) for key in ("title", note))
    named = [f"{begin_sentence(kind)}: {cells}." for kind, cells in summarize(judge_cells(results))]
    verdicts = [f"† {' '.join(named)}"] if named and name in _OF_CELLS else []
    text = " ".join((*verdicts, text, *describe_protocol(experiment.protocol_name, experiment.departures)))
    return Table(name, title, tuple(header), tuple(rows), text, num_text_columns=texts)


def departures_table(results: ExperimentResults) -> Table:
    """Return what the plan sets otherwise than its protocol, and the published figures that are withheld for it.

    Args:
        results: Results of the experiment.

    Returns:
        The departures.
    """
    rows = []
    for one in results.experiment.departures:
        tasks = results.experiment.tasks
        withheld = [method for method in results.methods if any(one.concerns(method, task.name) for task in tasks)]
        rows.append((one.key, str(one.protocol), str(one.plan), ", ".join(withheld) or "none"))
    header = ("key", "protocol", "plan", "published figures withheld of")
    return _make_table("departures", results, header, rows, texts=len(header))


def main_table(results: ExperimentResults) -> Table:
    """Return the means of the groups with wins, as table 1 of the paper.

    Args:
        results: Results of the experiment.

    Returns:
        The means of the groups with wins, as table 1 of the paper.
    """
    header = ["method", "parameters", *(f"{group or 'mean'} ({len(tasks)})" for group, tasks in results.groups.items())]
    rows = []
    for method in results.methods:
        total = results.parameters(method)
        row = [method, MISSING if total is None else f"{total:.2f}x"]
        for tasks in results.groups.values():
            mean, won = group_mean(list(results.means(method, tasks).values())), results.wins(method, tasks)
            row.append(format_percent(mean) + ("" if won is None else f" ({won})"))
        rows.append((*row, _p_value_over_tasks(results, method)))
    if results.experiment.baseline is None:
        return _make_table("main", results, header, (row[:-1] for row in rows))
    return _make_table("main", results, [*header, "p over tasks"], rows, note="note_with_baseline")


def per_task_table(results: ExperimentResults) -> Table:
    """Return mean and standard deviation of every cell.

    Args:
        results: Results of the experiment.

    Returns:
        Mean and standard deviation of every cell.
    """
    rows, marked = [], {(verdict.task, verdict.method) for verdict in judge_cells(results)}
    for task in results.experiment.tasks:
        cells = [results.cells[task.name, name] for name in results.methods]
        texts = (format_cell(cell) + (" †" if (task.name, cell.method) in marked else "") for cell in cells)
        rows.append((task.name, task.group, *texts))
    return _make_table("tasks", results, ("task", "group", *results.methods), rows, texts=2)


def verdicts_table(results: ExperimentResults) -> Table:
    """Return the verdicts on the cells, with their figures and what to do.

    Args:
        results: Results of the experiment.

    Returns:
        The verdicts on the cells.
    """
    rows = ((one.task, one.method, one.kind, one.evidence, one.remedy) for one in judge_cells(results))
    header = ("task", "method", "verdict", "evidence", "what to do")
    return _make_table("verdicts", results, header, rows, texts=len(header))


def published_table(results: ExperimentResults) -> Table:
    """Return published scores beside ours, for the cells that are comparable.

    Args:
        results: Results of the experiment.

    Returns:
        Published scores beside ours, for the cells that are comparable.
    """
    found = {method: published_scores(results.experiment, method) for method in results.methods}
    found = {method: scores for method, scores in found.items() if scores}
    rows = (
        (task.name, *(text for method, scores in found.items() for text in (
            format_cell(results.cells[task.name, method]), format_percent(scores.get(task.name)))))
        for task in results.experiment.tasks if any(task.name in scores for scores in found.values())
    )  # fmt: skip
    header = ("task", *(name for method in found for name in (method, f"{method}, published")))
    return _make_table("published", results, header, rows)


def format_cell(cell: Cell) -> str:
    """Return the text of a cell: mean ± standard deviation, and the number of runs where some are missing.

    Args:
        cell: The cell.

    Returns:
        The text of a cell.
    """
    if not cell.scores:
        return MISSING
    text = format_mean_std(statistics.fmean(cell.scores), cell.std)
    return text if cell.complete else f"{text} ({len(cell.scores)} of {cell.expected_runs})"


def significance_table(results: ExperimentResults) -> Table:
    """Return the difference to the baseline and Welch's test for each task.

    Args:
        results: Results of the experiment.

    Returns:
        The difference to the baseline and Welch's test for each task.
    """
    baseline, rows = results.experiment.baseline, []
    others = [method for method in results.methods if method != baseline]
    for task in results.experiment.tasks if baseline is not None and others else ():
        row = [task.name]
        for method in others:
            ours, theirs = results.cells[task.name, method], results.cells[task.name, str(baseline)]
            above = results.differences(method).get(task.name)
            p_value = None if above is None else welch(ours.scores, theirs.scores)
            row += [format_percent(above, signed=True), _format_p_value(p_value)]
        rows.append(tuple(row))
    return _make_table("tests", results, ("task", *(name for method in others for name in (method, "p"))), rows)


def settings_table(results: ExperimentResults) -> Table:
    """Return the setting of every cell.

    Args:
        results: Results of the experiment.

    Returns:
        The setting of every cell.
    """
    rows: list[Row] = []
    for (task, method), cell in results.cells.items():
        if cell.setting is None:
            figures: tuple[object, ...] = ("no setting was selected", "", "", "", "", "")
        else:
            config = cell.task.resolve_config(cell.setting.config)
            training = config.training
            rates = (f"{training.learning_rate:g}", f"{training.weight_decay:g}")
            spec = parse_method(cell.setting.spec)
            figures = (spec, training.optimizer, *rates, training.batch_size, config.num_epochs)
        if not cell.refusal:
            source = cell.task.settings_from
            on_val = format_percent(cell.val_score) if source is None else f"from {source}"
            rows.append((task, method, *map(str, figures), on_val))
    figure_names = ("as", "optimizer", "learning rate", "weight decay", "batch", "epochs")
    header = ("task", "method", *figure_names, f"{results.metric} on val")
    return _make_table("settings", results, header, rows, texts=4)


def cost_table(results: ExperimentResults) -> Table:
    """Return the cost of each method.

    Args:
        results: Results of the experiment.

    Returns:
        The cost of each method.
    """
    rows = []
    for method in results.methods:
        cells, trained = results.cells_of(method), results.mean_trainable(method)
        final = [record for cell in cells for record in cell.final_records if record.status == "done"]
        if not final or trained is None:
            continue
        rows.append((
            method,
            f"{trained:,.0f}",
            f"{100 * statistics.fmean(map(_trained_fraction, final)):.2f} %",
            f"{statistics.fmean(record.cost['file_bytes'] for record in final) / 1e6:,.3f}",
            f"{statistics.fmean(record.cost['seconds'] for record in final):,.1f}",
            f"{sum(record.cost['seconds'] for cell in cells for record in cell.records):,.0f}",
            f"{max(record.cost['peak_memory_bytes'] for record in final) / 1e6:,.0f}",
        ))  # fmt: skip
    header = ("method", "trained", "share", "file, MB", "training, s", "all runs, s", "peak memory, MB")
    return _make_table("cost", results, header, rows)


def _trained_fraction(record: Record) -> float:
    """Return trained parameters as a fraction of all; records of earlier ensembles count those of one model as all."""
    return record.parameters["trainable"] / max(record.parameters.values())


def failures_table(results: ExperimentResults) -> Table:
    """Return every run without a result, and every cell without all its runs.

    Args:
        results: Results of the experiment.

    Returns:
        Every run without a result, and every cell without all its runs.
    """
    rows: list[Row] = []
    for record in (record for record in results.records if record.status != "done"):
        training = record.config["training"]
        rates = (f"{training['learning_rate']:g}", f"{training['weight_decay']:g}", str(training["seed"]))
        rows.append((record.task, record.method, record.stage, record.status, *rates, one_line(record.error)))
    for (task, method), cell in results.cells.items():
        if cell.refusal:
            rows.append((task, method, "", "refused", "", "", "", one_line(cell.refusal)))
        if missing := cell.expected_runs - len(cell.final_records):
            reason = f"{missing} runs: {_why_missing(results, cell)}"
            rows.append((task, method, "final", "missing", "", "", "", reason))
    header = ("task", "method", "stage", "status", "learning rate", "weight decay", "seed", "message")
    return _make_table("failures", results, header, rows, texts=len(header))


def _why_missing(results: ExperimentResults, cell: Cell) -> str:
    """Return why a cell lacks final runs; an ensemble lacks its own because of those of its row."""
    experiment = results.experiment
    selecting, ensemble_of = experiment.selecting_task(cell.task), experiment.row(cell.method).ensemble_of
    method = ensemble_of or cell.method
    searched = results.cells[selecting.name, method].search_records
    failed = [record for record in searched if record.status == "failed"]
    if failed and len(failed) == len(experiment.row(method).settings_for(selecting)):
        return "all settings failed"
    members = results.cells[cell.task.name, method].final_records if ensemble_of else ()
    return f"a run of {method} diverged" if any(one.status == "failed" for one in members) else "not done yet"


def _p_value_over_tasks(results: ExperimentResults, method: str) -> str:
    differences, count = list(results.differences(method).values()), len(results.experiment.tasks)
    return _format_p_value(wilcoxon(differences) if len(differences) == count >= _FEWEST_TASKS else None)


def _format_p_value(value: float | None) -> str:
    return MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
