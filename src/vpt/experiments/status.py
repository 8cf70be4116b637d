"""How far a comparison is, read from its folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vpt.experiments.search import best_setting, remaining_runs, resolved_runs
from vpt.experiments.store import Store


@dataclass(frozen=True)
class Status:
    """Runs by what became of them. rows: for each cell, how many of its runs are done. troubles: what was said."""

    name: str
    total: int
    done: int
    failed: int
    error: int
    running: int
    rows: tuple[tuple[str, str, int, int], ...]
    error_messages: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def text(self) -> str:
        """The same for people."""
        task_width, method_width = max(len(row[0]) for row in self.rows), max(len(row[1]) for row in self.rows)
        head = f"{self.name}: {self.done} of {self.total} runs done, {self.failed} diverged, {self.error} in error, "
        lines = [f"{head}{self.running} at work"]
        lines += [
            f"  {task:<{task_width}}  {method:<{method_width}}  {done}/{total}"
            for task, method, done, total in self.rows
        ]
        return "".join(f"{line}\n" for line in [*lines, *self.error_messages])


def read_status(folder: Path) -> Status:
    """Read the plan and the records in `folder`. Raises DataError where there is no comparison."""
    store = Store(folder)
    experiment, records = store.load_experiment(), store.records()
    runs = resolved_runs(experiment, records)
    finished = [records[run_id] for run_id in runs if run_id in records]
    count = {state: sum(record.status == state for record in finished) for state in ("done", "failed", "error")}
    rows = []
    for task, row in experiment.cells():
        setting = best_setting(experiment, task, row, records)
        runs_of_cell = experiment.search_runs(task, row)
        total = len(runs_of_cell) + experiment.protocol.seeds
        runs_of_cell += [] if setting is None else experiment.final_runs(task, row, setting)
        rows.append((task.name, row.name, sum(run.id in records for run in runs_of_cell), total))
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
