"""Doing a random part of stored runs again, and comparing the scores with the stored ones."""

import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from vpt.errors import DataError
from vpt.experiments.experiment import METRICS, Run
from vpt.experiments.results import ExperimentResults, load_results
from vpt.experiments.running.worker import execute_runs
from vpt.experiments.selection import batch_of, resolved_runs
from vpt.experiments.store import Record, Store
from vpt.training.callbacks import Callback


@dataclass(frozen=True)
class VerifiedRun:
    """A run that was done again.

    Attributes:
        id: Id of the run.
        label: Task, method, stage and settings.
        status: "within" the spread, "outside" of it, or "error" where the run ended in one.
        metric: Key of the metric in METRICS; None where neither run has a score.
        stored: The stored score, between 0 and 1; None for a run that diverged.
        again: The score of the new run; None for one that diverged or ended in an error.
        spread: Standard deviation over seeds that the difference is compared with; None where none is known.
        error: Message of the new run; empty where there is none.
    """

    id: str
    label: str
    status: Literal["within", "outside", "error"]
    metric: str | None
    stored: float | None
    again: float | None
    spread: float | None
    error: str = ""

    def __str__(self) -> str:
        """Return one line for people."""
        stored, again = ("diverged" if score is None else f"{100 * score:.2f} %" for score in (self.stored, self.again))
        metric = "" if self.metric is None else f"{METRICS[self.metric]} "
        if self.status == "error":
            return f"error    {self.label}: {metric}{stored} stored, and now {self.error}"
        spread = "no spread is known" if self.spread is None else f"spread {100 * self.spread:.2f} points"
        return f"{self.status:<7}  {self.label}: {metric}{stored} stored, {again} now; {spread}"


@dataclass(frozen=True)
class Verification:
    """Runs of an experiment that were done again.

    Attributes:
        folder: Folder of the experiment.
        seed: Seed of the choice.
        total: Number of runs that could have been chosen.
        runs: The chosen ones.
    """

    folder: str
    seed: int
    total: int
    runs: tuple[VerifiedRun, ...]

    @property
    def confirmed(self) -> bool:
        """True if every run is within the spread."""
        return all(run.status == "within" for run in self.runs)


def verify(folder: Path, fraction: float, seed: int, callback: Callback) -> Verification:
    """Do a random part of the runs of an experiment again, in a folder of its own that is removed at the end.

    A score is within the spread if it differs from the stored one by at most a standard deviation over seeds: that of
    the final runs of its cell or, where the cell has only one, of all cells of the folder. Where no cell has two, it
    must be equal. A run that diverged must diverge again. Ensembles, which train nothing, are left out.

    Rounding is that of the stored run: it has as many threads, and heads that were trained at once are so again.

    Args:
        folder: Folder of the experiment, which is only read.
        fraction: Part of the runs, above 0 and at most 1; at least one run is done.
        seed: Seed of the choice.
        callback: Receiver of the events of the runs.

    Returns:
        The runs with their scores.

    Raises:
        DataError: The folder has no run that ended.
    """
    store = Store(folder)
    results, records = load_results(store), store.records()
    runs = {id: run for id, run in resolved_runs(results.experiment, records).items() if _can_repeat(run, records)}
    if not runs:
        raise DataError(f"{folder} has no run that ended, so there is nothing to do again; vpt bench run does the runs")
    chosen = sorted(random.Random(seed).sample(sorted(runs), max(1, round(fraction * len(runs)))))
    batches = {run_id: batch_of(results.experiment, runs[run_id], records) for run_id in chosen}
    again: dict[str, Record] = {}
    verified = []
    with tempfile.TemporaryDirectory(prefix="vpt-verify-") as scratch:
        for index, run_id in enumerate(chosen):
            run, stored = runs[run_id], records[run_id]
            callback.on_run_start(index + 1, len(chosen), run.method, run.setting.config.training.seed)
            if run_id not in again:
                with _num_threads(stored.provenance.get("threads")):
                    done = execute_runs(results.experiment, batches[run_id], Store(Path(scratch)), callback)
                again |= {record.id: record for record in done}
            callback.on_run_end(run, again[run_id])
            left = {other.id for later in chosen[index + 1 :] for other in batches[later]} - again.keys()
            seconds = sum(records[other].cost["wall_seconds"] for other in left if other in records)
            callback.on_progress(index + 1, len(chosen), seconds)
            verified.append(_compare(run, stored, again[run_id], _spread(results, run)))
    return Verification(str(folder), seed, len(runs), tuple(verified))


@contextmanager
def _num_threads(count: int | None) -> Iterator[None]:
    """Let torch compute with a number of threads, which sums are rounded by; None leaves it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _can_repeat(run: Run, records: Mapping[str, Record]) -> bool:
    return run.id in records and records[run.id].status != "error" and not run.members


def _spread(results: ExperimentResults, run: Run) -> float | None:
    """Return the standard deviation over seeds that a difference is compared with; None where none is known."""
    own = results.cells[run.task.name, run.method].std
    known = [cell.std for cell in results.cells.values() if cell.std is not None]
    if own is not None or not known:
        return own
    return float((sum(std**2 for std in known) / len(known)) ** 0.5)


def _compare(run: Run, stored: Record, again: Record, spread: float | None) -> VerifiedRun:
    if again.status == "error":
        status: Literal["within", "outside", "error"] = "error"
    elif stored.score is None or again.score is None:
        status = "within" if stored.score is again.score else "outside"
    else:
        status = "within" if abs(stored.score - again.score) <= (spread or 0.0) else "outside"
    metric = stored.metric or again.metric
    return VerifiedRun(run.id, run.label, status, metric, stored.score, again.score, spread, again.error)
