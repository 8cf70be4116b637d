"""The results of an experiment, computed from the records alone.

The results are cells, each a method on a task.
"""

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from textwrap import shorten

from vpt.errors import DataError
from vpt.experiments import significance
from vpt.experiments.design import MethodRow, Setting, Task
from vpt.experiments.experiment import METRICS, Experiment
from vpt.experiments.run_identity import training_options
from vpt.experiments.selection import Records, best_setting, cell_runs, resolved_runs
from vpt.experiments.store import Record, Store

_TASK_CONDITIONS = (
    "classes", "train_on", "images_per_class", "resize", "crop_fraction", "augment", "epochs", "settings_from",
    "mask_options",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A method on a task.

    Attributes:
        task: The task.
        method: Name of the row.
        setting: Setting that was given or selected; None while there is none.
        search_records: Records of the search runs, whatever their status.
        final_records: Records of the final runs, whatever their status.
        expected_runs: Number of final runs.
        refusal: Reason why the row has no runs; empty where it has.
        folder: Folder of the experiment.
    """

    task: Task
    method: str
    setting: Setting | None
    search_records: tuple[Record, ...]
    final_records: tuple[Record, ...]
    expected_runs: int
    refusal: str = ""
    folder: Path = Path()

    @property
    def records(self) -> tuple[Record, ...]:
        """All records of the cell."""
        return self.search_records + self.final_records

    @cached_property
    def scores(self) -> tuple[float, ...]:
        """The scores of the final runs that are done, between 0 and 1."""
        return tuple(record.score for record in self.final_records if record.score is not None)

    @property
    def complete(self) -> bool:
        """True where every final run is done. A mean without the failed ones would flatter a method."""
        return len(self.scores) == self.expected_runs

    @property
    def mean(self) -> float | None:
        """The mean score; None for a cell that is not complete."""
        return significance.mean(self.scores) if self.complete else None

    @property
    def std(self) -> float | None:
        """The standard deviation over the final runs; None for fewer than two."""
        return significance.std(self.scores)

    @property
    def val_score(self) -> float | None:
        """The score of the selected setting on val; None where there was no search on this task."""
        tried = (r for r in self.search_records if self.setting and r.config["method"] == self.setting.spec)
        wanted = None if self.setting is None else training_options(self.setting.config)
        return next((record.score for record in tried if record.config["training"] == wanted), None)

    @property
    def trainable_parameters(self) -> int | None:
        """The number of trainable parameters, head included; None before there is a run."""
        return next((record.parameters["trainable"] for record in self.final_records if record.parameters), None)


@dataclass(frozen=True)
class ExperimentResults:
    """The results of an experiment.

    Attributes:
        experiment: The experiment.
        cells: (task, method) -> cell.
        records: Records of all runs in the order of the plan.
    """

    experiment: Experiment
    cells: dict[tuple[str, str], Cell]
    records: tuple[Record, ...]

    @property
    def methods(self) -> list[str]:
        """The names of the rows in the order of the plan."""
        return [row.name for row in self.experiment.methods]

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return METRICS[self.experiment.metric]

    @property
    def scored_split(self) -> str:
        """The split that final runs are scored on, in words; test before there is a run."""
        scored = {record.scores["split"] for record in self.records if record.stage != "search" and record.scores}
        if "val" not in scored:
            return "test"
        return "val" if len(scored) == 1 else "test, or val where a task has no test images,"

    @property
    def groups(self) -> dict[str, list[Task]]:
        """The groups in the order of the plan with their tasks."""
        found: dict[str, list[Task]] = {}
        for task in self.experiment.tasks:
            found.setdefault(task.group, []).append(task)
        return found

    def cells_of(self, method: str, tasks: list[Task] | None = None) -> list[Cell]:
        """Return the cells of a method on some tasks; None takes all tasks."""
        return [self.cells[task.name, method] for task in (self.experiment.tasks if tasks is None else tasks)]

    def means(self, method: str, tasks: list[Task] | None = None) -> dict[str, float | None]:
        """Return the mean score of a method by task; None for a cell that is not complete."""
        return {cell.task.name: cell.mean for cell in self.cells_of(method, tasks)}

    def wins(self, method: str, tasks: list[Task] | None = None) -> int | None:
        """Return the number of tasks on which a method is better than the baseline.

        Args:
            method: Name of the row.
            tasks: Tasks to count; None counts all tasks.

        Returns:
            The number of tasks; None for the baseline itself, and where a cell is missing.
        """
        if self.experiment.baseline is None or method == self.experiment.baseline:
            return None
        return significance.wins(self.means(method, tasks), self.means(self.experiment.baseline, tasks))

    def differences(self, method: str) -> dict[str, float]:
        """Return the mean score minus that of the baseline by task, where both are complete."""
        if self.experiment.baseline is None or method == self.experiment.baseline:
            return {}
        return significance.differences(self.means(method), self.means(self.experiment.baseline))

    def mean_trainable(self, method: str) -> float | None:
        """Return the mean number of trainable parameters over tasks; None before there is a run."""
        counts = (cell.trainable_parameters for cell in self.cells_of(method))
        return significance.mean([count for count in counts if count is not None])

    def parameters(self, method: str) -> float | None:
        """Return the parameters to store for all tasks, as a multiple of the backbone (paper, table 1).

        A backbone of which some parameters are frozen is counted once.

        Args:
            method: Name of the row.

        Returns:
            The parameters to store for all tasks, as a multiple of the backbone of the row (paper, table 1); None
            before there is a run on each task, and where the size of that backbone is not known.
        """
        trainable_parameters = [cell.trainable_parameters for cell in self.cells_of(method)]
        row = self.experiment.row(method)
        backbone = self.experiment.parameters if row.fingerprint is None else row.parameters
        if None in trainable_parameters or backbone is None:
            return None
        records = [record for cell in self.cells_of(method) for record in cell.final_records if record.parameters]
        shared = any(record.parameters["trainable"] < record.parameters["total"] for record in records)
        return sum(filter(None, trainable_parameters)) / backbone + shared


def load_results(*stores: Store) -> ExperimentResults:
    """Return the results in a folder, or those of several folders side by side.

    Args:
        *stores: The folders. Their protocol, departures, conditions, tasks and backbone are the same.

    Returns:
        The results; the methods of the first folder come first.

    Raises:
        DataError: A folder holds no experiment, or one that cannot be compared with that of the first.
    """
    return reduce(_side_by_side, map(_load_folder, stores))


def _side_by_side(ours: ExperimentResults, theirs: ExperimentResults) -> ExperimentResults:
    """Return the results of two folders as one; refuse other conditions, under which figures mean something else."""
    first, second = ours.experiment, theirs.experiment
    for name, expected in _conditions(first).items():
        if (found := _conditions(second)[name]) != expected:
            raise DataError(
                f"{first.name} and {second.name} cannot be compared: {name} is {shorten(str(expected), 80)} in one and "
                f"{shorten(str(found), 80)} in the other; give folders of one protocol, with the same data and backbone"
            )
    if repeated := set(ours.methods) & set(theirs.methods):
        raise DataError(f"{first.name} and {second.name} both have the method {min(repeated)!r}; rename one")
    methods, baseline = first.methods + second.methods, first.baseline or second.baseline
    experiment = replace(first, name=f"{first.name}, {second.name}", methods=methods, baseline=baseline)
    return ExperimentResults(experiment, {**ours.cells, **theirs.cells}, ours.records + theirs.records)


def _conditions(experiment: Experiment) -> dict[str, object]:
    """Return all that decides what the figures of an experiment mean, except its methods."""
    return {
        "protocol": experiment.protocol_name,
        "departures": {one.key: one.plan for one in experiment.departures if not one.key.startswith("methods.")},
        "conditions": experiment.protocol,
        "backbone": experiment.backbone,
        "fingerprint": experiment.fingerprint,
        "segmentation": experiment.segmentation,
        "data": {task.name: task.digests for task in experiment.tasks},
        "tasks": {task.name: {key: getattr(task, key) for key in _TASK_CONDITIONS} for task in experiment.tasks},
    }


def _load_folder(store: Store) -> ExperimentResults:
    experiment, records = store.load_experiment(), store.records()
    cells = {
        (task.name, row.name): replace(_cell(experiment, task, row, records), folder=store.folder)
        for task, row in experiment.cells()
    }
    run_ids = resolved_runs(experiment, records)
    return ExperimentResults(experiment, cells, tuple(records[run_id] for run_id in run_ids if run_id in records))


def _cell(experiment: Experiment, task: Task, row: MethodRow, records: Records) -> Cell:
    setting, stages = best_setting(experiment, task, row, records), cell_runs(experiment, task, row, records)
    search, final = (tuple(records[run.id] for run in runs if run.id in records) for runs in stages)
    return Cell(task, row.name, setting, search, final, experiment.num_final_runs(row), row.refusal)
