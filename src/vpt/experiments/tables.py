"""The tables of a comparison, as text in cells; how they are written down is `render.py`'s part."""

from __future__ import annotations

import statistics as plain
from collections.abc import Sequence
from dataclasses import dataclass

from vpt.experiments.published import published
from vpt.experiments.results import Cell, Outcome
from vpt.experiments.significance import group_mean, welch, wilcoxon
from vpt.methods.registry import parse_method

MISSING = "–"


@dataclass(frozen=True)
class Table:
    """One table. name: of its files. words: how many of the first columns are text; the others are numbers."""

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: int = 1


def percent(value: float | None, signed: bool = False) -> str:
    """A share as a percentage with two decimals."""
    return MISSING if value is None else f"{100 * value:{'+' if signed else ''}.2f}"


def tables(outcome: Outcome) -> list[Table]:
    """All tables that have something to say."""
    every = (main, per_task, beside_published, significance, chosen, cost, failures)
    return [table for table in (make(outcome) for make in every) if table.rows]


def main(outcome: Outcome) -> Table:
    """Means of the groups and wins, as table 1 of the paper."""
    baseline = outcome.plan.baseline
    header = ["method", "parameters", *(f"{group or 'mean'} ({len(tasks)})" for group, tasks in outcome.groups.items())]
    rows = []
    for method in outcome.methods:
        total = outcome.parameters(method)
        row = [method, MISSING if total is None else f"{total:.2f}x"]
        for tasks in outcome.groups.values():
            won = outcome.wins(method, tasks)
            row.append(percent(group_mean(list(outcome.means(method, tasks).values()))))
            row[-1] += "" if won is None else f" ({won})"
        if baseline is not None:
            row.append(_p_over_tasks(outcome, method))
        rows.append(tuple(row))
    note = (
        f"{_title(outcome.metric)} on test in %, means over tasks. parameters: what {len(outcome.plan.tasks)} tasks "
        "take, in backbones."
    )
    if baseline is not None:
        header.append("p over tasks")
        note += (
            f" In brackets: tasks above {baseline}. p over tasks: one-sided Wilcoxon signed-rank test that a method is "
            f"better than {baseline} over all tasks."
        )
    return Table("main", "Comparison", tuple(header), tuple(rows),
                 f"{note} A group with a missing cell has no mean.")  # fmt: skip


def per_task(outcome: Outcome) -> Table:
    """Mean and spread of every cell."""
    rows = tuple(
        (task.name, task.group, *(figure(outcome.cells[task.name, method]) for method in outcome.methods))
        for task in outcome.plan.tasks
    )
    note = (
        f"{_title(outcome.metric)} on test in %, mean ± standard deviation over {outcome.plan.protocol.seeds} seeds. A "
        "cell whose runs did not all end well shows how many did, and counts as missing."
    )
    return Table("tasks", "Every task", ("task", "group", *outcome.methods), rows, note, words=2)


def beside_published(outcome: Outcome) -> Table:
    """Figures of others beside ours, for the cells that are comparable."""
    theirs = published()
    found = {entry.name: theirs.beside(outcome.plan, entry) for entry in outcome.plan.entries}
    methods = [method for method, figures in found.items() if figures]
    rows = tuple(
        (task.name, *(text for method in methods for text in (
            figure(outcome.cells[task.name, method]), percent(found[method].get(task.name)))))
        for task in outcome.plan.tasks if any(task.name in found[method] for method in methods)
    )  # fmt: skip
    header = ("task", *(name for method in methods for name in (method, f"{method}, published")))
    note = (
        f"Top-1 on test in %. published: {theirs.source}, on the same backbone and as many images in each part; the "
        "images of train and val may be others, and so may be the copy of the data."
    )
    return Table("published", "Beside published figures", header, rows, note)


def figure(cell: Cell) -> str:
    """A cell of that table."""
    if not cell.scores:
        return MISSING
    text = percent(plain.fmean(cell.scores)) + (f" ± {percent(cell.spread)}" if cell.spread is not None else "")
    return text if cell.complete else f"{text} ({len(cell.scores)} of {cell.planned})"


def significance(outcome: Outcome) -> Table:
    """Difference to the baseline, and Welch's test, for each task."""
    baseline = outcome.plan.baseline
    others = [method for method in outcome.methods if method != baseline]
    rows = []
    for task in outcome.plan.tasks if baseline is not None else ():
        row = [task.name]
        for method in others:
            ours, theirs = outcome.cells[task.name, method], outcome.cells[task.name, str(baseline)]
            above = outcome.differences(method).get(task.name)
            row += [percent(above, signed=True), _p(None if above is None else welch(ours.scores, theirs.scores))]
        rows.append(tuple(row))
    header = ("task", *(name for method in others for name in (method, "p")))
    note = (
        f"Points above {baseline}; p: one-sided Welch's t-test over the runs of the task. {len(rows)} tasks are tested "
        "side by side, without correction: some small p are to be expected."
    )
    return Table("tests", f"Against {baseline}, task by task", header, tuple(rows) if others else (), note)


def chosen(outcome: Outcome) -> Table:
    """The settings of every cell."""
    rows: list[tuple[str, ...]] = []
    for (task, method), cell in outcome.cells.items():
        if cell.candidate is None:
            rows.append((task, method, "nothing was chosen", "", "", "", "", "", MISSING))
            continue
        recipe = cell.candidate.recipe
        figures = (f"{recipe.learning_rate:g}", f"{recipe.weight_decay:g}", str(recipe.batch_size), str(recipe.epochs))
        spec = str(parse_method(cell.candidate.spec))
        rows.append((task, method, spec, recipe.optimizer, *figures, percent(cell.on_val)))
    header = (
        "task",
        "method",
        "as",
        "optimizer",
        "learning rate",
        "weight decay",
        "batch",
        "epochs",
        f"{outcome.metric} on val",
    )
    note = (
        f"Chosen by {outcome.metric} of the last epoch on val, in %; ties go to the smaller step. Learning rates: per "
        "256 images."
    )
    return Table("settings", "Settings", header, tuple(rows), note, words=4)


def cost(outcome: Outcome) -> Table:
    """What each method took."""
    rows = []
    for method in outcome.methods:
        cells = outcome.of(method)
        final = [record for cell in cells for record in cell.final if record.status == "done"]
        trained = [cell.trained for cell in cells if cell.trained is not None]
        if not final:
            continue
        rows.append((
            method,
            f"{plain.fmean(trained):,.0f}",
            f"{100 * plain.fmean(trained) / final[0].parameters['total']:.2f} %",
            f"{plain.fmean(record.cost['file_bytes'] for record in final) / 1e6:,.3f}",
            f"{plain.fmean(record.cost['seconds'] for record in final):,.1f}",
            f"{sum(record.cost['seconds'] for cell in cells for record in (*cell.choosing, *cell.final)):,.0f}",
            f"{max(record.cost['peak_memory_bytes'] for record in final) / 1e6:,.0f}",
        ))  # fmt: skip
    header = ("method", "trained", "share", "file, MB", "training, s", "all runs, s", "peak memory, MB")
    note = (
        "Means over tasks and final runs; all runs: the sum of training over choosing and final runs. Peak memory: the "
        "highest of any final run, of the GPU where one trained, else of the process."
    )
    return Table("cost", "Cost", header, tuple(rows), note)


def failures(outcome: Outcome) -> Table:
    """Every run that has no result, and every cell that lacks runs."""
    rows: list[tuple[str, ...]] = [
        (record.task, record.method, record.stage, record.status,
         f"{record.config['recipe']['learning_rate']:g}", f"{record.config['recipe']['weight_decay']:g}",
         str(record.config["recipe"]["seed"]), " ".join(record.error.split()))
        for record in outcome.records if record.status != "done"
    ]  # fmt: skip
    for cell in outcome.cells.values():
        missing = cell.planned - len(cell.final)
        if missing:
            why = "all settings failed" if _hopeless(outcome, cell) else "not done yet"
            rows.append((cell.task.name, cell.method, "final", "missing", "", "", "", f"{missing} runs: {why}"))
    header = ("task", "method", "stage", "status", "learning rate", "weight decay", "seed", "what was said")
    note = "failed: training diverged, which is a result; error: tried again by the next `vpt bench run`."
    return Table("failures", "What is missing", header, tuple(rows), note, words=len(header))


def _hopeless(outcome: Outcome, cell: Cell) -> bool:
    entry = next(entry for entry in outcome.plan.entries if entry.name == cell.method)
    failed = [record for record in cell.choosing if record.status == "failed"]
    return len(failed) == len(entry.candidates)


def _title(words: str) -> str:
    """With a capital letter, and the others as they are."""
    return words[0].upper() + words[1:]


def _p_over_tasks(outcome: Outcome, method: str) -> str:
    differences = outcome.differences(method)
    return _p(wilcoxon(list(differences.values())) if len(differences) == len(outcome.plan.tasks) else None)


def _p(value: float | None) -> str:
    return MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def provenance(outcome: Outcome) -> Sequence[tuple[str, str]]:
    """What a reader needs to judge the figures, as names and values."""
    plan, protocol = outcome.plan, outcome.plan.protocol
    machines: dict[str, None] = {}
    for record in outcome.records:
        found = record.provenance
        if found:
            parts = [found["processor"], f"{found['cores']} cores", f"{found['threads']} threads", *found["gpus"]]
            parts += [f"{name} {version}" for name, version in found["versions"].items()]
            machines.setdefault("; ".join(parts))
    size = f"{protocol.image_size} px, " if protocol.image_size else ""
    lines = [
        ("backbone", f"{plan.backbone}, {plan.parameters:,} parameters, {plan.fingerprint}"),
        ("images", f"{size}{protocol.resize}, interpolation: {protocol.interpolation or 'that of the backbone'}"),
        ("runs", f"{len(outcome.records)}, of which {sum(r.status == 'done' for r in outcome.records)} ended well"),
        *(("machine", machine) for machine in machines),
    ]
    if protocol.train_fraction < 1:
        lines.append(("training images", f"{protocol.train_fraction:.0%} of each class"))
    for task in plan.tasks:
        counts = ", ".join(f"{part} {count:,}" for part, count in task.images.items())
        lines += [(task.name, f"{task.classes} classes; {counts}"), *((task.name, note) for note in task.notes)]
    return lines


PROTOCOL = (
    "Every setting was trained on train and judged by the score of its last epoch on val. The best one was trained "
    "again on train and val with several seeds, and the last epoch of each was scored on test, once. Runs that choose "
    "settings are given no test set. A method with one setting had nothing to choose."
)
