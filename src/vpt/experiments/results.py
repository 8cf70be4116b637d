"""What a comparison has come to: its cells, each a method on a task, read from the records alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from vpt.experiments import significance
from vpt.experiments.experiment import METRICS, Candidate, Entry, Plan, Task
from vpt.experiments.search import Records, chosen, known
from vpt.experiments.store import Record, Store


@dataclass(frozen=True)
class Cell:
    """A method on a task. candidate: the settings it was given or that were chosen; None where none could be.

    choosing, final: the records there are, whatever became of them. planned: how many final runs there should be.
    """

    task: Task
    method: str
    candidate: Candidate | None
    choosing: tuple[Record, ...]
    final: tuple[Record, ...]
    planned: int

    @cached_property
    def scores(self) -> tuple[float, ...]:
        """Of the final runs that ended well, between 0 and 1."""
        return tuple(record.score for record in self.final if record.score is not None)

    @property
    def complete(self) -> bool:
        """Whether every final run ended well. Leaving out those that did not would flatter a method."""
        return len(self.scores) == self.planned

    @property
    def mean(self) -> float | None:
        """Mean score; None for a cell that is not complete."""
        return significance.mean(self.scores) if self.complete else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the final runs; None for fewer than two."""
        return significance.spread(self.scores)

    @property
    def on_val(self) -> float | None:
        """Score on val of what was chosen; None where nothing had to be chosen."""
        tried = (r for r in self.choosing if self.candidate and r.config["method"] == self.candidate.spec)
        wanted = None if self.candidate is None else self.candidate.recipe.as_dict()
        return next((record.score for record in tried if record.config["recipe"] == wanted), None)

    @property
    def trained(self) -> int | None:
        """Parameters that train, head included; None before there is a run."""
        return next((record.parameters["trained"] for record in self.final if record.parameters), None)


@dataclass(frozen=True)
class Outcome:
    """All cells of a plan."""

    plan: Plan
    cells: dict[tuple[str, str], Cell]
    records: tuple[Record, ...]

    @property
    def methods(self) -> list[str]:
        """The rows, in the order of the plan."""
        return [entry.name for entry in self.plan.entries]

    @property
    def metric(self) -> str:
        """What is measured, in words."""
        return METRICS[self.plan.metric]

    @property
    def groups(self) -> dict[str, list[Task]]:
        """Groups in the order of the plan, with their tasks."""
        found: dict[str, list[Task]] = {}
        for task in self.plan.tasks:
            found.setdefault(task.group, []).append(task)
        return found

    def of(self, method: str, tasks: list[Task] | None = None) -> list[Cell]:
        """The cells of a method."""
        return [self.cells[task.name, method] for task in (self.plan.tasks if tasks is None else tasks)]

    def means(self, method: str, tasks: list[Task] | None = None) -> dict[str, float | None]:
        """Task -> mean score, None for a cell that is not complete."""
        return {cell.task.name: cell.mean for cell in self.of(method, tasks)}

    def wins(self, method: str, tasks: list[Task] | None = None) -> int | None:
        """Tasks in which a method is above the baseline; None for the baseline itself and for missing cells."""
        if self.plan.baseline is None or method == self.plan.baseline:
            return None
        return significance.wins(self.means(method, tasks), self.means(self.plan.baseline, tasks))

    def differences(self, method: str) -> dict[str, float]:
        """Task -> mean score above the baseline's, where both are complete."""
        if self.plan.baseline is None or method == self.plan.baseline:
            return {}
        return significance.differences(self.means(method), self.means(self.plan.baseline))

    def parameters(self, method: str) -> float | None:
        """All parameters that must be kept for all tasks, in backbones (paper, table 1).

        The frozen backbone is kept once, unless nothing of it is left frozen.
        """
        trained = [cell.trained for cell in self.of(method)]
        if None in trained:
            return None
        records = [record for cell in self.of(method) for record in cell.final if record.parameters]
        shared = any(record.parameters["trained"] < record.parameters["total"] for record in records)
        return (sum(filter(None, trained)) + shared * self.plan.parameters) / self.plan.parameters


def outcome(store: Store) -> Outcome:
    """Read a folder. Raises DataError where there is no comparison."""
    plan, records = store.plan(), store.records()
    cells = {(task.name, entry.name): _cell(plan, task, entry, records) for task, entry in plan.cells()}
    return Outcome(plan, cells, tuple(records[run_id] for run_id in known(plan, records) if run_id in records))


def _cell(plan: Plan, task: Task, entry: Entry, records: Records) -> Cell:
    candidate = chosen(plan, task, entry, records)
    final = [] if candidate is None else plan.final(task, entry, candidate)
    choosing, ended = (
        tuple(records[run.id] for run in runs if run.id in records) for runs in (plan.choosing(task, entry), final)
    )
    return Cell(task, entry.name, candidate, choosing, ended, plan.protocol.seeds)
