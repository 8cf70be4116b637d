"""A plan, done: what is missing is handed to a place that works, and what comes of it is told."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.search import remaining_runs, resolved_runs, runnable_runs
from vpt.experiments.store import Record, Store
from vpt.training.callbacks import Callback


class Board:
    """Tells a callback of new records, and guesses how long the rest takes."""

    def __init__(self, experiment: Experiment, store: Store, callback: Callback) -> None:
        self.experiment, self.store, self.callback = experiment, store, callback
        self.told = set(store.records())

    def note(self, text: str) -> None:
        """Something the user should know."""
        self.callback.on_note(text)

    def tell(self, parallel_runs: int) -> None:
        """Look for new records. parallel_runs: runs that are done at the same time."""
        records = self.store.records()
        runs = resolved_runs(self.experiment, records)
        for run_id in [run_id for run_id in runs if run_id in records and run_id not in self.told]:
            self.told.add(run_id)
            self.callback.on_run_end(runs[run_id], records[run_id])
        rest = remaining_runs(self.experiment, records)
        done = sum(run_id in records for run_id in runs)
        self.callback.on_progress(done, done + len(rest), self._seconds(rest, list(records.values()), parallel_runs))

    def _seconds(self, rest: Sequence[Run | None], records: Sequence[Record], parallel_runs: int) -> float | None:
        """Each run as long as those of its method and stage so far, or as all of them where there are none."""
        times: dict[tuple[str, str] | None, list[float]] = {}
        for record in records:
            for key in ((record.method, record.stage), None):
                times.setdefault(key, []).append(record.cost["wall_seconds"])
        if not times:
            return None
        means = {key: statistics.mean(values) for key, values in times.items()}
        return sum(means.get((run.method, run.stage) if run else None, means[None]) for run in rest) / parallel_runs


class Executor(Protocol):
    """Where runs are done: processes of this machine, or a cluster."""

    def execute(self, experiment: Experiment, store: Store, board: Board) -> None:
        """Do runs until none is left that can be done; the board is told of each."""


def run_experiment(
    experiment: Experiment, folder: Path, executor: Executor, callback: Callback | None = None
) -> dict[str, Record]:
    """Do what is missing of a plan in `folder`; the records of the plan.

    Runs that ended in an error (not: that diverged) are tried again. Interrupted or killed, the same call goes on.
    Raises VptError where the place cannot begin, or a record cannot be written.
    """
    callback = callback or Callback()
    store = Store(folder)
    store.save_experiment(experiment)
    retried = store.clear_errors()
    store.clean_up()
    if retried:
        callback.on_note(f"{retried} runs that ended in an error are tried again")
    board = Board(experiment, store, callback)
    if runnable_runs(experiment, store.records()):
        executor.execute(experiment, store, board)
    store.clean_up()  # a worker that was killed meanwhile has left its halves
    board.tell(1)
    records = store.records()
    return {run_id: records[run_id] for run_id in resolved_runs(experiment, records) if run_id in records}
