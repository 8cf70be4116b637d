"""A worker: it locks a run, does it and writes its record, until no run is left.

Any process that sees the folder may call `run_worker`, at the same time as others.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime

from vpt.backbones import load_backbone
from vpt.core import environment
from vpt.core.damage import damage_named
from vpt.core.io import make_folder, move_into_place
from vpt.data.loading import load_dataset
from vpt.errors import BackboneError, DataError, TrainingError
from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.run_lock import heartbeat
from vpt.experiments.running.head_jobs import tune_heads
from vpt.experiments.running.runner import ProgressReporter
from vpt.experiments.selection import count_runs, run_batches
from vpt.experiments.store import Record, Store
from vpt.model import tuned_file
from vpt.model.load import load
from vpt.tasks.classification.prediction import evaluate_ensemble
from vpt.training import Callback, CallbackList, EpochMetrics, HistoryCallback, distributed
from vpt.training.job import Job, RunResult
from vpt.tuning import run_job

OnLost = Callable[[], None]  # called when another process has taken over the run
POLL_INTERVAL = 0.5  # seconds between two looks at the folder while other processes do runs


def exit_at_once() -> None:
    """End this process, whatever its threads do."""
    os._exit(1)


def run_worker(
    experiment: Experiment, store: Store, on_lost: OnLost = exit_at_once, reporter: ProgressReporter | None = None
) -> None:
    """Do runs until none is left that can be done; wait while other processes hold the last ones.

    Args:
        experiment: The experiment.
        store: Folder of the experiment.
        on_lost: Function to call, from another thread, when this process was silent for so long that another one has
            taken over its run. Default: end the process.
        reporter: Reports each run, and passes the events of its training on to its callback; None reports nothing.
    """
    callback = reporter.callback if reporter else Callback()
    while batches := run_batches(experiment, store.records()):
        for runs in batches:
            if _try_runs(experiment, runs, store, on_lost, callback):
                if reporter:
                    reporter.report(1)
                break
        else:
            time.sleep(POLL_INTERVAL)


def _try_runs(experiment: Experiment, runs: Sequence[Run], store: Store, on_lost: OnLost, callback: Callback) -> bool:
    """Return whether this process did the runs: they were not all done, and none was locked."""
    lock = store.claim(runs)
    if lock is None:
        return False
    try:
        done, total = count_runs(experiment, store.records())
        callback.on_run_start(done + 1, total, runs[0].method, runs[0].setting.config.training.seed)
        with heartbeat(lock, on_lost):
            records = execute_runs(experiment, runs, store, callback)
        for record in records:
            store.add(record)
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
        records = _run_head_grid(experiment, runs, store, callback)
    else:
        records = [_run_single(experiment, runs[0], store, callback)]
    cost, energy_end = {"wall_seconds": (time.perf_counter() - start) / len(runs)}, environment.energy_joules(device)
    if energy_start is not None and energy_end is not None and energy_end >= energy_start:  # less: counted from 0 again
        cost["energy_joules"] = (energy_end - energy_start) / len(runs)
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    provenance = {**environment.describe(), "device": device.type, "ended": ended}
    return [replace(record, cost={**record.cost, **cost}, provenance=provenance) for record in records]


def _run_single(experiment: Experiment, run: Run, store: Store, callback: Callback) -> Record:
    history_callback = HistoryCallback()
    job = experiment.make_job(run, store.work_path(run.id), store.feature_cache)
    try:
        if run.members:
            return _score_ensemble(experiment, run, job, store)
        callbacks = CallbackList([history_callback, callback])
        # Without a lock on its output: the claim on the run holds, which another machine can take over.
        result = run_job(job, callbacks, draw=False, overwrite=_must_overwrite(job), lock=False)
        _keep_tuned_file(experiment, run, store)
    except Exception as error:  # of any kind: the other runs can still be done
        return _failure(run, error, history_callback.history)
    return result_record(run, result)


def _score_ensemble(experiment: Experiment, run: Run, job: Job, store: Store) -> Record:
    """Score the tuned files of final runs together as one model."""
    records = [store.records()[run_id] for run_id in run.members]
    data = load_dataset(job.data, **job.split_options)
    backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
    models = [load(store.tuned_path(record.id), backbone) for record in records]
    split = records[0].scores["split"]
    scores = evaluate_ensemble(models, data, split, skip_corrupt=job.to_dict()["skip_corrupt"])
    peak_memory = environment.peak_memory(distributed.resolve_device())
    file_bytes = sum(record.cost["file_bytes"] for record in records)
    trainable, counts = sum(record.parameters["trainable"] for record in records), records[0].parameters
    return Record.of_run(
        run,
        "done",
        scores={"split": split, **scores.metrics},
        parameters={"total": counts["total"] - counts["trainable"] + trainable, "trainable": trainable},
        images=records[0].images,
        cost={"seconds": 0.0, "peak_memory_bytes": peak_memory, "file_bytes": file_bytes},
    )


def _run_head_grid(experiment: Experiment, runs: Sequence[Run], store: Store, callback: Callback) -> list[Record]:
    jobs = [experiment.make_job(run, store.work_path(run.id), store.feature_cache) for run in runs]
    records: list[Record] = []
    try:
        for run, result in zip(runs, tune_heads(jobs, callback), strict=True):
            if isinstance(result, TrainingError):
                records.append(_failure(run, result))
                continue
            _keep_tuned_file(experiment, run, store)
            records.append(result_record(run, result))
    except Exception as error:
        return [_failure(run, error) for run in runs]
    return records


def _keep_tuned_file(experiment: Experiment, run: Run, store: Store) -> None:
    """Check that the tuned file is of the expected backbone; keep that of a final run."""
    found, row = tuned_file.read_header(store.work_path(run.id)).fingerprint, experiment.row(run.method)
    expected, source = row.fingerprint or experiment.fingerprint, row.source if row.fingerprint else experiment.source
    if found not in (expected, source):
        raise BackboneError(
            f"the weights of {experiment.backbone} have changed since the plan was read ({expected} then, {found} "
            "now); give the plan again"
        )
    if experiment.keep_tuned and run.stage == "final":
        make_folder(store.tuned_path(run.id).parent)
        move_into_place(store.work_path(run.id), store.tuned_path(run.id))


def _failure(run: Run, error: Exception, history: Sequence[EpochMetrics] = ()) -> Record:
    epochs = [asdict(epoch) for epoch in history]
    cost = {"seconds": sum(epoch.seconds for epoch in history)}
    if isinstance(error, TrainingError):
        return Record.of_run(run, "failed", error=str(error), history=epochs, cost=cost)
    return Record.of_run(run, "error", error=f"{type(error).__name__}: {error}", history=epochs, cost=cost)


def result_record(run: Run, result: RunResult) -> Record:
    """Return the record of a run that was done as a single job.

    Args:
        run: The run.
        result: Result of the job.

    Returns:
        The record, with the environment of the job.
    """
    costs = {name: getattr(result, name) for name in ("seconds", "peak_memory_bytes", "file_bytes")}
    return Record.of_run(
        run,
        "done",
        scores={"split": result.eval_split, **result.eval_metrics, "per_class": result.per_class},
        history=result.history,
        parameters={"total": result.total_parameters, "trainable": result.trainable_parameters},
        cost={**costs, "wall_seconds": result.seconds},
        notes=result.notes,
        images=result.images,
        provenance=result.environment,
    )


def _must_overwrite(job: Job) -> bool:
    """Return whether an unfinished run is to start again: it has other paths, or its run folder is missing.

    All else is the same, as the id is. Paths are others where the data or the folder of the experiment were moved.
    """
    job_file = job.run_dir / "job.json"
    if job.out.exists() and not job_file.exists():
        return True
    if not job_file.exists():
        return False
    with damage_named(job_file, "record of the run", "delete its folder to begin anew", DataError):
        return bool(json.loads(job_file.read_text(encoding="utf-8"))["job"] != job.to_dict())
