"""What a comparison has come to: its cells, each a method on a task, read from the records alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from vpt.experiments import significance
from vpt.experiments.experiment import METRICS, Experiment, MethodRow, Setting, Task
from vpt.experiments.search import Records, best_setting, resolved_runs
from vpt.experiments.store import Record, Store


@dataclass(frozen=True)
class Cell:
    """A method on a task. setting: the settings it was given or that were chosen; None where none could be.

    search_records, final_records: the records there are, whatever became of them. expected_runs: how many final runs there should be.
    """

    task: Task
    method: str
    setting: Setting | None
    search_records: tuple[Record, ...]
    final_records: tuple[Record, ...]
    expected_runs: int

    @cached_property
    def scores(self) -> tuple[float, ...]:
        """Of the final runs that ended well, between 0 and 1."""
        return tuple(record.score for record in self.final_records if record.score is not None)

    @property
    def complete(self) -> bool:
        """Whether every final run ended well. Leaving out those that did not would flatter a method."""
        return len(self.scores) == self.expected_runs

    @property
    def mean(self) -> float | None:
        """Mean score; None for a cell that is not complete."""
        return significance.mean(self.scores) if self.complete else None

    @property
    def std(self) -> float | None:
        """Standard deviation over the final runs; None for fewer than two."""
        return significance.std(self.scores)

    @property
    def val_score(self) -> float | None:
        """Score on val of what was chosen; None where nothing had to be chosen."""
        tried = (r for r in self.search_records if self.setting and r.config["method"] == self.setting.spec)
        wanted = None if self.setting is None else self.setting.config.to_dict()
        return next((record.score for record in tried if record.config["training"] == wanted), None)

    @property
    def trainable_parameters(self) -> int | None:
        """Parameters that train, head included; None before there is a run."""
        return next((record.parameters["trainable"] for record in self.final_records if record.parameters), None)


@dataclass(frozen=True)
class ExperimentResults:
    """All cells of a plan."""

    experiment: Experiment
    cells: dict[tuple[str, str], Cell]
    records: tuple[Record, ...]

    @property
    def methods(self) -> list[str]:
        """The rows, in the order of the plan."""
        return [row.name for row in self.experiment.methods]

    @property
    def metric(self) -> str:
        """What is measured, in words."""
        return METRICS[self.experiment.metric]

    @property
    def groups(self) -> dict[str, list[Task]]:
        """Groups in the order of the plan, with their tasks."""
        found: dict[str, list[Task]] = {}
        for task in self.experiment.tasks:
            found.setdefault(task.group, []).append(task)
        return found

    def cells_of(self, method: str, tasks: list[Task] | None = None) -> list[Cell]:
        """The cells of a method."""
        return [self.cells[task.name, method] for task in (self.experiment.tasks if tasks is None else tasks)]

    def means(self, method: str, tasks: list[Task] | None = None) -> dict[str, float | None]:
        """Task -> mean score, None for a cell that is not complete."""
        return {cell.task.name: cell.mean for cell in self.cells_of(method, tasks)}

    def wins(self, method: str, tasks: list[Task] | None = None) -> int | None:
        """Tasks in which a method is above the baseline; None for the baseline itself and for missing cells."""
        if self.experiment.baseline is None or method == self.experiment.baseline:
            return None
        return significance.wins(self.means(method, tasks), self.means(self.experiment.baseline, tasks))

    def differences(self, method: str) -> dict[str, float]:
        """Task -> mean score above the baseline's, where both are complete."""
        if self.experiment.baseline is None or method == self.experiment.baseline:
            return {}
        return significance.differences(self.means(method), self.means(self.experiment.baseline))

    def parameters(self, method: str) -> float | None:
        """All parameters that must be kept for all tasks, in backbones (paper, table 1).

        The frozen backbone is kept once, unless nothing of it is left frozen.
        """
        trainable_parameters = [cell.trainable_parameters for cell in self.cells_of(method)]
        if None in trainable_parameters:
            return None
        records = [record for cell in self.cells_of(method) for record in cell.final_records if record.parameters]
        shared = any(record.parameters["trainable"] < record.parameters["total"] for record in records)
        return (
            sum(filter(None, trainable_parameters)) + shared * self.experiment.parameters
        ) / self.experiment.parameters


def load_results(store: Store) -> ExperimentResults:
    """Read a folder. Raises DataError where there is no comparison."""
    experiment, records = store.load_experiment(), store.records()
    cells = {(task.name, row.name): _cell(experiment, task, row, records) for task, row in experiment.cells()}
    return ExperimentResults(
        experiment, cells, tuple(records[run_id] for run_id in resolved_runs(experiment, records) if run_id in records)
    )


def _cell(experiment: Experiment, task: Task, row: MethodRow, records: Records) -> Cell:
    setting = best_setting(experiment, task, row, records)
    final_runs = [] if setting is None else experiment.final_runs(task, row, setting)
    search_records, final_records = (
        tuple(records[run.id] for run in runs if run.id in records)
        for runs in (experiment.search_runs(task, row), final_runs)
    )
    return Cell(task, row.name, setting, search_records, final_records, experiment.protocol.seeds)
