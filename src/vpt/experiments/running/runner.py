"""Running an experiment: an executor does the missing runs, and callbacks receive their results."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from vpt import errors
from vpt.core.text import pluralize
from vpt.errors import VptError
from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.selection import count_runs, remaining_runs, resolved_runs, runnable_runs
from vpt.experiments.store import Record, Store
from vpt.training.callbacks import Callback
from vpt.training.loggers import FailSafeLogger, Logger


class ProgressReporter:
    """Reports new records to a callback, and estimates the remaining time."""

    def __init__(self, experiment: Experiment, store: Store, callback: Callback) -> None:
        """Start with the records there are, which are not reported.

        Args:
            experiment: The experiment.
            store: Folder of the experiment.
            callback: Callback that receives the events.
        """
        self.experiment: Experiment = experiment
        self.store: Store = store
        self.callback: Callback = callback
        self.reported: set[str] = set(store.records())

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
        seconds = _estimate_seconds(remaining_runs(self.experiment, records), records.values())
        done, total = count_runs(self.experiment, records)
        self.callback.on_progress(done, total, None if seconds is None else seconds / parallel_runs)


class LoggedRuns(Callback):
    """Callback that passes every run on to a logger when it has ended."""

    def __init__(self, logger: Logger, on_note: Callable[[str], None]) -> None:
        """Log runs.

        Args:
            logger: The logger.
            on_note: Function that receives a message if the logger fails.
        """
        self.logger: FailSafeLogger = FailSafeLogger(logger, on_note)

    def on_run_end(self, run: Run, record: Record) -> None:
        """Log a run.

        Args:
            run: The run.
            record: Its record.
        """
        self.logger.begin(f"{run.task.name}/{run.method}/{run.stage}/{run.id}", record.config)
        for epoch in record.history:
            self.logger.log_epoch(epoch)
        self.logger.end({} if record.score is None else {f"{record.scores['split']}_{record.metric}": record.score})


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
    experiment: Experiment, folder: Path, executor: Executor, callback: Callback | None = None, overwrite: bool = False
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
    earlier = experiment.with_all_decaying()
    if overwrite:
        for each in (experiment, earlier):
            store.remove_records(resolved_runs(each, store.records()))
    if _has_only_runs_of(earlier, experiment, store.records()):
        experiment = earlier
        callback.on_note("the runs of this folder decay all tensors, and so do further ones; --out begins another")
    store.save_experiment(experiment)
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


def _has_only_runs_of(earlier: Experiment, experiment: Experiment, records: Mapping[str, Record]) -> bool:
    """Return whether runs of an earlier form of an experiment are done, and none that only its present form has."""
    done, present = (resolved_runs(form, records).keys() & records.keys() for form in (earlier, experiment))
    return not done <= present and present <= done


def _estimate_seconds(remaining: Iterable[Run | None], records: Iterable[Record]) -> float | None:
    """Return the remaining time: each run takes as long as those of its method and stage, or as all of them."""
    times = defaultdict[tuple[str, str] | None, list[float]](list)
    for record in records:
        times[record.method, record.stage].append(record.cost["wall_seconds"])
        times[None].append(record.cost["wall_seconds"])
    means = {key: statistics.fmean(values) for key, values in times.items()}
    return sum(means.get((run.method, run.stage) if run else None, means[None]) for run in remaining) if means else None
