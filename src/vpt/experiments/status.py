"""The progress of an experiment, read from its folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vpt.experiments.search import cell_runs, remaining_runs, resolved_runs
from vpt.experiments.store import Store


@dataclass(frozen=True)
class Status:
    """The progress of an experiment.

    Attributes:
        name: Name of the experiment.
        total: Number of runs.
        done: Number of runs that are done.
        failed: Number of runs that diverged.
        error: Number of runs that ended in an error.
        running: Number of runs that a process holds.
        rows: Task, method, runs with a record, and all runs of each cell.
        error_messages: A line for each run that is not done and has a record.
    """

    name: str
    total: int
    done: int
    failed: int
    error: int
    running: int
    rows: tuple[tuple[str, str, int, int], ...]
    error_messages: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the progress as JSON values."""
        return asdict(self)

    def text(self) -> str:
        """Return the progress as text."""
        task_width, method_width = max(len(row[0]) for row in self.rows), max(len(row[1]) for row in self.rows)
        head = f"{self.name}: {self.done} of {self.total} runs done, {self.failed} diverged, {self.error} in error, "
        lines = [f"{head}{self.running} running"]
        lines += [
            f"  {task:<{task_width}}  {method:<{method_width}}  {done}/{total}"
            for task, method, done, total in self.rows
        ]
        return "".join(f"{line}\n" for line in [*lines, *self.error_messages])


def read_status(folder: Path) -> Status:
    """Return the progress of the experiment in a folder.

    Args:
        folder: Folder of the experiment.

    Returns:
        The progress of the experiment in a folder.

    Raises:
        DataError: The folder holds no experiment.
    """
    store = Store(folder)
    experiment, records = store.load_experiment(), store.records()
    runs = resolved_runs(experiment, records)
    finished = [records[run_id] for run_id in runs if run_id in records]
    count = {state: sum(record.status == state for record in finished) for state in ("done", "failed", "error")}
    rows = []
    for task, row in experiment.cells():
        search, final = cell_runs(experiment, task, row, records)
        done = sum(run.id in records for run in (*search, *final))
        rows.append((task.name, row.name, done, len(search) + experiment.num_final_runs(row)))
    return Status(
        name=experiment.name,
        total=len(finished) + len(remaining_runs(experiment, records)),
        done=count["done"],
        failed=count["failed"],
        error=count["error"],
        running=len(store.locks.held()),
        rows=tuple(rows),
        error_messages=tuple(f"{runs[r.id].label}  {r.status}: {r.error}" for r in finished if r.error),
    )
