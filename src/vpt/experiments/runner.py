"""Running an experiment: an executor does the missing runs, and callbacks receive their results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from vpt import errors
from vpt.core.text import pluralize
from vpt.errors import VptError
from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.search import remaining_runs, resolved_runs, runnable_runs
from vpt.experiments.store import Record, Store
from vpt.training.callbacks import Callback


class ProgressReporter:
    """Reports new records to a callback, and estimates the remaining time."""

    def __init__(self, experiment: Experiment, store: Store, callback: Callback) -> None:
        """Start with the records there are, which are not reported.

        Args:
            experiment: The experiment.
            store: Folder of the experiment.
            callback: Callback that receives the events.
        """
        self.experiment = experiment
        self.store = store
        self.callback = callback
        self.reported: set[str] = set(store.records())

    def note(self, text: str) -> None:
        """Report a message that the user should read."""
        self.callback.on_note(text)

    def report(self, parallel_runs: int) -> None:
        """Report the records that are new, and the progress.

        Args:
            parallel_runs: Number of runs that are done at the same time.
        """
        records = self.store.records()
        runs = resolved_runs(self.experiment, records)
        for run_id in [run_id for run_id in runs if run_id in records and run_id not in self.reported]:
            self.reported.add(run_id)
            self.callback.on_run_end(runs[run_id], records[run_id])
        rest = remaining_runs(self.experiment, records)
        done = sum(run_id in records for run_id in runs)
        self.callback.on_progress(done, done + len(rest), self._seconds(rest, list(records.values()), parallel_runs))

    def _seconds(self, rest: Sequence[Run | None], records: Sequence[Record], parallel_runs: int) -> float | None:
        """Return the remaining time: each run takes as long as those of its method and stage, or as all of them."""
        times: dict[tuple[str, str] | None, list[float]] = {}
        for record in records:
            for key in ((record.method, record.stage), None):
                times.setdefault(key, []).append(record.cost["wall_seconds"])
        if not times:
            return None
        means = {key: statistics.mean(values) for key, values in times.items()}
        return sum(means.get((run.method, run.stage) if run else None, means[None]) for run in rest) / parallel_runs


class Executor(Protocol):
    """The machinery that does runs: this process, processes of this machine, or a cluster."""

    def execute(self, experiment: Experiment, store: Store, reporter: ProgressReporter) -> None:
        """Do runs until none is left that can be done.

        Args:
            experiment: The experiment.
            store: Folder of the experiment.
            reporter: Reports the runs.
        """


def run_experiment(
    experiment: Experiment,
    folder: Path,
    executor: Executor,
    callback: Callback | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Record]:
    """Do the missing runs of an experiment. The same call resumes an interrupted one.

    Runs that ended in an error are tried again; those that diverged are not.

    Args:
        experiment: The experiment.
        folder: Folder of the experiment; several processes may work in it at once.
        executor: Does the runs.
        callback: Callback that receives the events; None receives none.
        overwrite: Do all runs again. Default: False.

    Returns:
        The records of the experiment by run id.

    Raises:
        VptError: The executor cannot start, or a record cannot be written.
    """
    callback = callback or Callback()
    store = Store(folder)
    store.save_experiment(experiment)
    if overwrite:
        store.remove_records(resolved_runs(experiment, store.records()))
    retried = store.clear_errors()
    store.clean_up()
    if retried:
        callback.on_note(f"runs that ended in an error and are tried again: {retried}")
    reporter = ProgressReporter(experiment, store, callback)
    if runnable_runs(experiment, store.records()):
        executor.execute(experiment, store, reporter)
    store.clean_up()  # a worker that was killed meanwhile has left unfinished files
    reporter.report(1)
    records = store.records()
    return {run_id: records[run_id] for run_id in resolved_runs(experiment, records) if run_id in records}


def raise_errors(records: Mapping[str, Record]) -> None:
    """Raise the first error of the runs that ended in one; a run that diverged did not.

    Args:
        records: Records by run id.

    Raises:
        VptError: A run ended in an error; of the class of that error where vpt raised it.
    """
    failed = [record for record in records.values() if record.status == "error"]
    if not failed:
        return
    name, _, text = failed[0].error.partition(": ")
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, VptError)):
        kind, text = VptError, failed[0].error
    raise kind(f"{text}\n{pluralize(len(failed), 'run')} ended in an error; the same command tries them again")
