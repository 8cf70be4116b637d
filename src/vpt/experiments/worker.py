"""A worker: it locks a run, does it and writes its record, until no run is left.

Any process that sees the folder may call `run_worker`, at the same time as others.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from vpt.backbones import load_backbone
from vpt.core import environment
from vpt.data.loading import load_dataset
from vpt.errors import BackboneError, TrainingError
from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.run_lock import heartbeat
from vpt.experiments.search import remaining_runs, resolved_runs, run_batches
from vpt.experiments.store import Record, Store
from vpt.model import tuned_file
from vpt.tasks.classification.prediction import evaluate_ensemble
from vpt.training import Callback, CallbackList, HistoryCallback, distributed
from vpt.training.job import Job, RunResult
from vpt.tuning import run_job, tune_heads

POLL_INTERVAL = 0.5  # seconds between two looks at the folder while other processes do runs


def run_worker(
    experiment: Experiment,
    store: Store,
    on_lost: Callable[[], None] = lambda: os._exit(1),
    callback: Callback | None = None,
    on_end: Callable[[], None] = lambda: None,
) -> None:
    """Do runs until none is left that can be done; wait while other processes hold the last ones.

    Args:
        experiment: The experiment.
        store: Folder of the experiment.
        on_lost: Function to call, from another thread, when this process was silent for so long that another one has
            taken over its run. Default: end the process.
        callback: Callback that receives the start of each run and the events of its training; None receives none.
        on_end: Function to call after each record is written.
    """
    callback = callback or Callback()
    while batches := run_batches(experiment, store.records()):
        for runs in batches:
            if _try_runs(experiment, runs, store, on_lost, callback):
                on_end()
                break
        else:
            time.sleep(POLL_INTERVAL)


def _try_runs(
    experiment: Experiment, runs: Sequence[Run], store: Store, on_lost: Callable[[], None], callback: Callback
) -> bool:
    """Return whether this process did the runs: they were not done or locked. The first one's lock holds for all."""
    lock = store.locks.acquire(runs[0].id)
    if lock is None:
        return False
    try:
        if all(store.has_record(run.id) for run in runs):  # they were ended between our look at the folder and our lock
            return False
        records = store.records()
        total = len(resolved_runs(experiment, records)) + remaining_runs(experiment, records).count(None)
        index = sum(run_id in records for run_id in resolved_runs(experiment, records)) + 1
        callback.on_run_start(index, total, runs[0].method, runs[0].setting.config.training.seed)
        with heartbeat(lock, on_lost):
            new_records = execute_runs(experiment, runs, store, callback)
        for record in new_records:
            if store.has_record(record.id):
                store.remove_work(record.id)
            else:
                store.write(record)
        return True
    finally:
        lock.release()


def execute_runs(
    experiment: Experiment, runs: Sequence[Run], store: Store, callback: Callback | None = None
) -> list[Record]:
    """Do a run, or resume it, or do several at once, which then share the time and the energy.

    Args:
        experiment: The experiment.
        runs: One run, or the heads of a grid.
        store: Folder of the experiment.
        callback: Callback that receives the events of training; None receives none.

    Returns:
        A record for each run. An error is a record too; only an interrupt is passed on.
    """
    callback = callback or Callback()
    device = distributed.resolve_device()
    start, energy_start = time.perf_counter(), environment.energy_joules(device)
    environment.reset_peak_memory(device)
    if len(runs) > 1:
        all_fields = _run_head_grid(experiment, runs, store, callback)
    else:
        all_fields = [_run_single(experiment, runs[0], store, callback)]
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


def _run_single(experiment: Experiment, run: Run, store: Store, callback: Callback) -> dict[str, Any]:
    history_callback = HistoryCallback()
    callbacks = CallbackList([history_callback, callback])
    job = experiment.make_job(run, store.work_path(run.id), store.feature_cache)
    try:
        if run.members:
            return _score_ensemble(experiment, run, store)
        overwrite = _must_overwrite(job)
        result_fields = _success(run_job(job, callbacks, draw=False, overwrite=overwrite))
        _keep_tuned_file(experiment, run, store)
    except Exception as error:  # of any kind: the other runs can still be done
        result_fields = _failure(error, [asdict(epoch) for epoch in history_callback.history])
    return result_fields


def _score_ensemble(experiment: Experiment, run: Run, store: Store) -> dict[str, Any]:
    """Score the tuned files of final runs together as one model."""
    records = [store.records()[run_id] for run_id in run.members]
    job = experiment.make_job(run, store.work_path(run.id))
    data = load_dataset(job.data, **job.split_options)
    backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
    models = [tuned_file.load(store.tuned_path(record.id), backbone) for record in records]
    split = records[0].scores["split"]
    scores = evaluate_ensemble(models, data, split, skip_corrupt=job.to_dict()["skip_corrupt"])
    trainable = sum(record.parameters["trainable"] for record in records)
    return {
        "status": "done",
        "scores": {"split": split, **scores.metrics},
        "history": [],
        "parameters": {**records[0].parameters, "trainable": trainable},
        "images": records[0].images,
        "cost": {
            "seconds": 0.0,
            "peak_memory_bytes": environment.peak_memory(distributed.resolve_device()),
            "file_bytes": sum(record.cost["file_bytes"] for record in records),
        },
    }


def _run_head_grid(
    experiment: Experiment, runs: Sequence[Run], store: Store, callback: Callback
) -> list[dict[str, Any]]:
    all_fields: list[dict[str, Any]] = []
    try:
        results = tune_heads([experiment.make_job(run, store.work_path(run.id), store.feature_cache) for run in runs],
                             callback)  # fmt: skip
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
    """Check that the tuned file is of the expected backbone; keep that of a final run."""
    found = tuned_file.inspect(store.work_path(run.id)).fingerprint
    expected = experiment.row(run.method).fingerprint or experiment.fingerprint
    if found != expected:
        raise BackboneError(
            f"the weights of {experiment.backbone} have changed since the plan was read ({expected} then, {found} "
            "now); give the plan again"
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


def result_record(run: Run, result: RunResult) -> Record:
    """Return the record of a run that was done as a single job.

    Args:
        run: The run.
        result: Result of the job.

    Returns:
        The record, with the environment of the job.
    """
    fields = _success(result)
    fields["cost"]["wall_seconds"] = result.seconds
    return replace(_make_record(run, fields), provenance=result.environment)


def error_record(run: Run, error: str) -> Record:
    """Return the record of a run whose process ended.

    Args:
        run: The run.
        error: Message.

    Returns:
        The record of a run whose process ended.
    """
    return Record(run.id, "error", run.task.name, run.method, run.stage, dict(run.config), error,
                  cost={"seconds": 0.0, "wall_seconds": 0.0})  # fmt: skip


def _must_overwrite(job: Job) -> bool:
    """Return whether an unfinished run is to start again: it has other paths, or its run folder is missing.

    All else is the same, as the id is. Paths are others where the data or the folder of the experiment were moved.
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
        "images": result.images,
    }
