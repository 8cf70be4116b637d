"""The tables of a report."""

from __future__ import annotations

import statistics

from vpt.experiments.published import load_published
from vpt.experiments.results import Cell, ExperimentResults
from vpt.experiments.significance import group_mean, welch, wilcoxon
from vpt.experiments.table import MISSING, Table, format_mean_std, format_percent, one_line
from vpt.methods.registry import parse_method


def build_tables(results: ExperimentResults) -> list[Table]:
    """Return all tables that have rows.

    Args:
        results: Results of the experiment.

    Returns:
        All tables that have rows.
    """
    builders = (
        main_table,
        per_task_table,
        published_table,
        significance_table,
        settings_table,
        cost_table,
        failures_table,
    )
    return [table for table in (make(results) for make in builders) if table.rows]


def main_table(results: ExperimentResults) -> Table:
    """Return the means of the groups with wins, as table 1 of the paper.

    Args:
        results: Results of the experiment.

    Returns:
        The means of the groups with wins, as table 1 of the paper.
    """
    baseline = results.experiment.baseline
    header = ["method", "parameters", *(f"{group or 'mean'} ({len(tasks)})" for group, tasks in results.groups.items())]
    rows = []
    for method in results.methods:
        total = results.parameters(method)
        row = [method, MISSING if total is None else f"{total:.2f}x"]
        for tasks in results.groups.values():
            won = results.wins(method, tasks)
            row.append(format_percent(group_mean(list(results.means(method, tasks).values()))))
            row[-1] += "" if won is None else f" ({won})"
        if baseline is not None:
            row.append(_p_value_over_tasks(results, method))
        rows.append(tuple(row))
    note = (
        f"{_capitalize(results.metric)} on test in %, means over tasks. parameters: what "
        f"{len(results.experiment.tasks)} tasks take, in backbones."
    )
    if baseline is not None:
        header.append("p over tasks")
        note += (
            f" In brackets: tasks above {baseline}. p over tasks: one-sided Wilcoxon signed-rank test that a method is "
            f"better than {baseline} over all tasks."
        )
    return Table("main", "Comparison", tuple(header), tuple(rows),
                 f"{note} A group with a missing cell has no mean.")  # fmt: skip


def per_task_table(results: ExperimentResults) -> Table:
    """Return mean and standard deviation of every cell.

    Args:
        results: Results of the experiment.

    Returns:
        Mean and standard deviation of every cell.
    """
    rows = tuple(
        (task.name, task.group, *(format_cell(results.cells[task.name, method]) for method in results.methods))
        for task in results.experiment.tasks
    )
    note = (
        f"{_capitalize(results.metric)} on test in %, mean ± standard deviation over "
        f"{results.experiment.protocol.seeds} seeds. A cell whose runs did not all end well shows "
        "how many did, and counts as missing."
    )
    return Table("tasks", "Every task", ("task", "group", *results.methods), rows, note, num_text_columns=2)


def published_table(results: ExperimentResults) -> Table:
    """Return published scores beside ours, for the cells that are comparable.

    Args:
        results: Results of the experiment.

    Returns:
        Published scores beside ours, for the cells that are comparable.
    """
    theirs = load_published()
    found = {row.name: theirs.comparable_scores(results.experiment, row) for row in results.experiment.methods}
    methods = [method for method, figures in found.items() if figures]
    rows = tuple(
        (task.name, *(text for method in methods for text in (
            format_cell(results.cells[task.name, method]), format_percent(found[method].get(task.name)))))
        for task in results.experiment.tasks if any(task.name in found[method] for method in methods)
    )  # fmt: skip
    header = ("task", *(name for method in methods for name in (method, f"{method}, published")))
    note = (
        f"Top-1 on test in %. published: {theirs.source}, on the same backbone and as many images in each part; the "
        "images of train and val may be others, and so may be the copy of the data."
    )
    return Table("published", "Beside published figures", header, rows, note)


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
    baseline = results.experiment.baseline
    others = [method for method in results.methods if method != baseline]
    rows = []
    for task in results.experiment.tasks if baseline is not None else ():
        row = [task.name]
        for method in others:
            ours, theirs = results.cells[task.name, method], results.cells[task.name, str(baseline)]
            above = results.differences(method).get(task.name)
            row += [
                format_percent(above, signed=True),
                _format_p_value(None if above is None else welch(ours.scores, theirs.scores)),
            ]
        rows.append(tuple(row))
    header = ("task", *(name for method in others for name in (method, "p")))
    note = (
        f"Points above {baseline}; p: one-sided Welch's t-test over the runs of the task. {len(rows)} tasks are tested "
        "side by side, without correction: some small p are to be expected."
    )
    return Table("tests", f"Against {baseline}, task by task", header, tuple(rows) if others else (), note)


def settings_table(results: ExperimentResults) -> Table:
    """Return the setting of every cell.

    Args:
        results: Results of the experiment.

    Returns:
        The setting of every cell.
    """
    rows: list[tuple[str, ...]] = []
    for (task, method), cell in results.cells.items():
        if cell.refusal:
            continue
        if cell.setting is None:
            rows.append((task, method, "no setting was selected", "", "", "", "", "", MISSING))
            continue
        config = cell.setting.config
        training = config.training
        figures = (
            f"{training.learning_rate:g}",
            f"{training.weight_decay:g}",
            str(training.batch_size),
            str(config.num_epochs),
        )
        spec = str(parse_method(cell.setting.spec))
        rows.append((task, method, spec, training.optimizer, *figures, format_percent(cell.val_score)))
    header = (
        "task",
        "method",
        "as",
        "optimizer",
        "learning rate",
        "weight decay",
        "batch",
        "epochs",
        f"{results.metric} on val",
    )
    note = (
        f"Selected by {results.metric} of the last epoch on val, in %; ties go to the smaller step. Learning rates: "
        "per 256 images."
    )
    return Table("settings", "Settings", header, tuple(rows), note, num_text_columns=4)


def cost_table(results: ExperimentResults) -> Table:
    """Return the cost of each method.

    Args:
        results: Results of the experiment.

    Returns:
        The cost of each method.
    """
    rows = []
    for method in results.methods:
        cells = results.cells_of(method)
        final = [record for cell in cells for record in cell.final_records if record.status == "done"]
        trained = [cell.trainable_parameters for cell in cells if cell.trainable_parameters is not None]
        if not final:
            continue
        rows.append((
            method,
            f"{statistics.fmean(trained):,.0f}",
            f"{100 * statistics.fmean(trained) / final[0].parameters['total']:.2f} %",
            f"{statistics.fmean(record.cost['file_bytes'] for record in final) / 1e6:,.3f}",
            f"{statistics.fmean(record.cost['seconds'] for record in final):,.1f}",
            f"{sum(record.cost['seconds'] for cell in cells for record in cell.records):,.0f}",
            f"{max(record.cost['peak_memory_bytes'] for record in final) / 1e6:,.0f}",
        ))  # fmt: skip
    header = ("method", "trained", "share", "file, MB", "training, s", "all runs, s", "peak memory, MB")
    note = (
        "Means over tasks and final runs; all runs: the sum of training over choosing and final runs. Peak memory: the "
        "highest of any final run, of the GPU where one trained, else of the process."
    )
    return Table("cost", "Cost", header, tuple(rows), note)


def failures_table(results: ExperimentResults) -> Table:
    """Return every run without a result, and every cell without all its runs.

    Args:
        results: Results of the experiment.

    Returns:
        Every run without a result, and every cell without all its runs.
    """
    rows: list[tuple[str, ...]] = [
        (record.task, record.method, record.stage, record.status,
         f"{record.config['training']['learning_rate']:g}", f"{record.config['training']['weight_decay']:g}",
         str(record.config["training"]["seed"]), one_line(record.error))
        for record in results.records if record.status != "done"
    ]  # fmt: skip
    for cell in results.cells.values():
        if cell.refusal:
            rows.append((cell.task.name, cell.method, "", "refused", "", "", "", one_line(cell.refusal)))
        missing = cell.expected_runs - len(cell.final_records)
        if missing:
            why = "all settings failed" if _all_settings_failed(results, cell) else "not done yet"
            rows.append((cell.task.name, cell.method, "final", "missing", "", "", "", f"{missing} runs: {why}"))
    header = ("task", "method", "stage", "status", "learning rate", "weight decay", "seed", "message")
    note = (
        "failed: training diverged, which is a result; error: tried again by the next `vpt bench run`; refused: the "
        "backbone does not support the method."
    )
    return Table("failures", "What is missing", header, tuple(rows), note, num_text_columns=len(header))


def _all_settings_failed(results: ExperimentResults, cell: Cell) -> bool:
    row = next(row for row in results.experiment.methods if row.name == cell.method)
    failed = [record for record in cell.search_records if record.status == "failed"]
    return len(failed) == len(row.settings_for(cell.task))


def _capitalize(words: str) -> str:
    """Return words with the first letter as a capital."""
    return words[0].upper() + words[1:]


def _p_value_over_tasks(results: ExperimentResults, method: str) -> str:
    differences = results.differences(method)
    return _format_p_value(
        wilcoxon(list(differences.values())) if len(differences) == len(results.experiment.tasks) else None
    )


def _format_p_value(value: float | None) -> str:
    return MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
