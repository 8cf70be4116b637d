"""One worker: lock a run, do it, write its record, until nothing is left.

`work` is all that a cluster needs: any process that sees the folder may call it, next to any others.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from vpt.core import environment
from vpt.errors import BackboneError, TrainingError
from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.run_lock import heartbeat
from vpt.experiments.search import run_batches
from vpt.experiments.store import Record, Store
from vpt.model import tuned_file
from vpt.training import Callback, EpochMetrics, TaskConfig, distributed
from vpt.training.job import Job, RunResult
from vpt.tuning import run_job, tune_heads

POLL_INTERVAL = 0.5  # seconds between two looks at the folder while others are at work


class _HistoryCallback(Callback):
    """Keeps the epochs, for the record of a run that fails."""

    def __init__(self) -> None:
        self.history: list[EpochMetrics] = []

    def on_train_start(
        self, config: TaskConfig, steps_per_epoch: int, completed_epochs: Sequence[EpochMetrics]
    ) -> None:
        self.history = list(completed_epochs)

    def on_epoch(self, record: EpochMetrics) -> None:
        self.history.append(record)


def run_worker(experiment: Experiment, store: Store, on_lost: Callable[[], None] = lambda: os._exit(1)) -> None:
    """Do runs until none is left that can be done; waits while others hold the last ones.

    lost: called, from another thread, when this process was silent for so long that its run was taken over.
    """
    while batches := run_batches(experiment, store.records()):
        if not any(_try_runs(experiment, runs, store, on_lost) for runs in batches):
            time.sleep(POLL_INTERVAL)


def _try_runs(experiment: Experiment, runs: Sequence[Run], store: Store, on_lost: Callable[[], None]) -> bool:
    """Whether this process did the runs, and did not find them done or locked. The first one's lock holds for all."""
    lock = store.locks.acquire(runs[0].id)
    if lock is None:
        return False
    try:
        if all(store.has_record(run.id) for run in runs):  # they were ended between our look at the folder and our lock
            return False
        with heartbeat(lock, on_lost):
            records = execute_runs(experiment, runs, store)
        for record in records:
            if store.has_record(record.id):
                store.remove_work(record.id)
            else:
                store.write(record)
        return True
    finally:
        lock.release()


def execute_runs(experiment: Experiment, runs: Sequence[Run], store: Store) -> list[Record]:
    """Do a run, or go on with it, or do several at once, which then share the time and the energy.

    What goes wrong is a record too; only an interrupt is passed on.
    """
    device = distributed.local_device()
    start, energy_start = time.perf_counter(), environment.energy_joules(device)
    environment.reset_peak_memory(device)
    all_fields = _run_head_grid(experiment, runs, store) if len(runs) > 1 else [_run_single(experiment, runs[0], store)]
    wall_seconds, energy_end = time.perf_counter() - start, environment.energy_joules(device)
    for result_fields in all_fields:
        cost = result_fields.setdefault(
            "cost", {"seconds": sum(epoch["seconds"] for epoch in result_fields["history"])}
        )
        cost["wall_seconds"] = wall_seconds / len(runs)
        if (
            energy_start is not None and energy_end is not None and energy_end >= energy_start
        ):  # less: the counter began anew
            cost["energy_joules"] = (energy_end - energy_start) / len(runs)
    return [_make_record(run, result_fields) for run, result_fields in zip(runs, all_fields, strict=True)]


def _run_single(experiment: Experiment, run: Run, store: Store) -> dict[str, Any]:
    history_callback = _HistoryCallback()
    job = experiment.make_job(run, store.work_path(run.id), store.feature_cache)
    try:
        overwrite = _must_overwrite(job)
        result_fields = _success(run_job(job, history_callback, draw=False, overwrite=overwrite))
        _keep_tuned_file(experiment, run, store)
    except Exception as error:  # of any kind: the other runs can still be done
        result_fields = _failure(error, [asdict(epoch) for epoch in history_callback.history])
    return result_fields


def _run_head_grid(experiment: Experiment, runs: Sequence[Run], store: Store) -> list[dict[str, Any]]:
    all_fields: list[dict[str, Any]] = []
    try:
        results = tune_heads([experiment.make_job(run, store.work_path(run.id), store.feature_cache) for run in runs])
        for run, result in zip(runs, results, strict=True):
            if isinstance(result, TrainingError):
                all_fields.append(_failure(result, []))
                continue
            all_fields.append(_success(result))
            _keep_tuned_file(experiment, run, store)
    except Exception as error:
        return [_failure(error, []) for _ in runs]
    return all_fields


def _keep_tuned_file(experiment: Experiment, run: Run, store: Store) -> None:
    """See that the tuned file is of the plan's backbone, and put it where it stays, if it is to."""
    found = tuned_file.inspect(store.work_path(run.id)).fingerprint
    if found != experiment.fingerprint:
        raise BackboneError(
            f"the weights of {experiment.backbone} have changed since the plan was read ({experiment.fingerprint} then, "
            f"{found} now); give the plan again"
        )
    if experiment.keep_tuned and run.stage == "final":
        store.tuned_path(run.id).parent.mkdir(parents=True, exist_ok=True)
        store.work_path(run.id).replace(store.tuned_path(run.id))


def _failure(error: Exception, history: list[dict[str, Any]]) -> dict[str, Any]:
    if isinstance(error, TrainingError):
        return {"status": "failed", "error": str(error), "history": history}
    return {"status": "error", "error": f"{type(error).__name__}: {error}", "history": history}


def _make_record(run: Run, result_fields: Mapping[str, Any]) -> Record:
    return Record(
        id=run.id,
        task=run.task.name,
        method=run.method,
        stage=run.stage,
        config=dict(run.config),
        provenance={**environment.describe(), "ended": datetime.now(UTC).isoformat(timespec="seconds")},
        **result_fields,
    )


def error_record(run: Run, error: str) -> Record:
    """The record of a run that took its process with it."""
    return Record(run.id, "error", run.task.name, run.method, run.stage, dict(run.config), error,
                  cost={"seconds": 0.0, "wall_seconds": 0.0})  # fmt: skip


def _must_overwrite(job: Job) -> bool:
    """Whether an earlier sitting had other paths, or left its file alone. The id vouches for the rest.

    Paths are others where the data or the folder were moved.
    """
    job_file = job.run_dir / "job.json"
    if job.out.exists() and not job_file.exists():
        return True
    return job_file.exists() and json.loads(job_file.read_text(encoding="utf-8"))["job"] != job.to_dict()


def _success(result: RunResult) -> dict[str, Any]:
    return {
        "status": "done",
        "scores": {"split": result.eval_split, **result.eval_metrics, "per_class": result.per_class},
        "history": result.history,
        "parameters": {"total": result.total_parameters, "trainable": result.trainable_parameters},
        "cost": {
            "seconds": result.seconds,
            "peak_memory_bytes": result.peak_memory_bytes,
            "file_bytes": result.file_bytes,
        },
        "notes": result.notes,
    }
