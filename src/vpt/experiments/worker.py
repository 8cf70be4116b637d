"""One worker: claim a run, do it, write its record, until nothing is left.

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
from vpt.experiments.experiment import Plan, Run
from vpt.experiments.run_lock import beating
from vpt.experiments.search import bundles
from vpt.experiments.segmentation_tasks import scores_of
from vpt.experiments.store import Record, Store
from vpt.model import tuned_file
from vpt.tasks.segmentation.job import Segmented, SegmentJob, tune_segmentation
from vpt.training import Epoch, Recipe, distributed
from vpt.training.job import Job, Listener, Result
from vpt.tuning import tune, tune_heads

PAUSE = 0.5  # seconds between two looks at the folder while others are at work


class _Heard(Listener):
    """Keeps the epochs, for the record of a run that fails."""

    def __init__(self) -> None:
        self.history: list[Epoch] = []

    def begin(self, recipe: Recipe, steps_per_epoch: int, done: Sequence[Epoch]) -> None:
        self.history = list(done)

    def epoch(self, epoch: Epoch) -> None:
        self.history.append(epoch)


def work(plan: Plan, store: Store, lost: Callable[[], None] = lambda: os._exit(1)) -> None:
    """Do runs until none is left that can be done; waits while others hold the last ones.

    lost: called, from another thread, when this process was silent for so long that its run was taken over.
    """
    while todo := bundles(plan, store.records()):
        if not any(_done(plan, runs, store, lost) for runs in todo):
            time.sleep(PAUSE)


def _done(plan: Plan, runs: Sequence[Run], store: Store, lost: Callable[[], None]) -> bool:
    """Whether this process did the runs, and did not find them done or claimed. The first one's claim holds for all."""
    claim = store.claims.take(runs[0].id)
    if claim is None:
        return False
    try:
        if all(store.has(run.id) for run in runs):  # they were ended between our look at the folder and our claim
            return False
        with beating(claim, lost):
            records = execute(plan, runs, store)
        for record in records:
            if store.has(record.id):
                store.clear(record.id)
            else:
                store.write(record)
        return True
    finally:
        claim.release()


def execute(plan: Plan, runs: Sequence[Run], store: Store) -> list[Record]:
    """Do a run, or go on with it, or do several at once, which then share the time and the energy.

    What goes wrong is a record too; only an interrupt is passed on.
    """
    device = distributed.local_device()
    began, energy = time.perf_counter(), environment.energy(device)
    environment.forget_peak(device)
    outcomes = _together(plan, runs, store) if len(runs) > 1 else [_alone(plan, runs[0], store)]
    wall, used = time.perf_counter() - began, environment.energy(device)
    for outcome in outcomes:
        cost = outcome.setdefault("cost", {"seconds": sum(epoch["seconds"] for epoch in outcome["history"])})
        cost["wall_seconds"] = wall / len(runs)
        if energy is not None and used is not None and used >= energy:  # less: the counter began anew
            cost["energy_joules"] = (used - energy) / len(runs)
    return [_record(run, outcome) for run, outcome in zip(runs, outcomes, strict=True)]


def _alone(plan: Plan, run: Run, store: Store) -> dict[str, Any]:
    heard = _Heard()
    job = plan.job(run, store.out(run.id), store.features)
    try:
        overwrite = _begun_elsewhere(job)
        if isinstance(job, SegmentJob):
            segmented = tune_segmentation(job, heard, draw=False, overwrite=overwrite)
            outcome = _done_well(segmented, scores_of(segmented))
        else:
            result = tune(job, heard, draw=False, overwrite=overwrite)
            outcome = _done_well(result, _scores_of(result))
        _keep(plan, run, store)
    except Exception as error:  # of any kind: the other runs can still be done
        outcome = _gone_wrong(error, [asdict(epoch) for epoch in heard.history])
    return outcome


def _together(plan: Plan, runs: Sequence[Run], store: Store) -> list[dict[str, Any]]:
    outcomes: list[dict[str, Any]] = []
    try:
        results = tune_heads([plan.job(run, store.out(run.id), store.features) for run in runs])
        for run, result in zip(runs, results, strict=True):
            if isinstance(result, TrainingError):
                outcomes.append(_gone_wrong(result, []))
                continue
            outcomes.append(_done_well(result, _scores_of(result)))
            _keep(plan, run, store)
    except Exception as error:
        return [_gone_wrong(error, []) for _ in runs]
    return outcomes


def _keep(plan: Plan, run: Run, store: Store) -> None:
    """See that the tuned file is of the plan's backbone, and put it where it stays, if it is to."""
    found = tuned_file.inspect(store.out(run.id)).fingerprint
    if found != plan.fingerprint:
        raise BackboneError(
            f"the weights of {plan.backbone} have changed since the plan was read ({plan.fingerprint} then, "
            f"{found} now); give the plan again"
        )
    if plan.keep_tuned and run.stage == "final":
        store.tuned(run.id).parent.mkdir(parents=True, exist_ok=True)
        store.out(run.id).replace(store.tuned(run.id))


def _gone_wrong(error: Exception, history: list[dict[str, Any]]) -> dict[str, Any]:
    if isinstance(error, TrainingError):
        return {"status": "failed", "error": str(error), "history": history}
    return {"status": "error", "error": f"{type(error).__name__}: {error}", "history": history}


def _record(run: Run, outcome: Mapping[str, Any]) -> Record:
    return Record(
        id=run.id,
        task=run.task.name,
        method=run.method,
        stage=run.stage,
        config=dict(run.config),
        provenance={**environment.describe(), "ended": datetime.now(UTC).isoformat(timespec="seconds")},
        **outcome,
    )


def without_result(run: Run, error: str) -> Record:
    """The record of a run that took its process with it."""
    return Record(run.id, "error", run.task.name, run.method, run.stage, dict(run.config), error,
                  cost={"seconds": 0.0, "wall_seconds": 0.0})  # fmt: skip


def _begun_elsewhere(job: Job) -> bool:
    """Whether an earlier sitting had other paths, or left its file alone. The id vouches for the rest.

    Paths are others where the data or the folder were moved.
    """
    claimed = job.folder / "job.json"
    if job.out.exists() and not claimed.exists():
        return True
    return claimed.exists() and json.loads(claimed.read_text(encoding="utf-8"))["job"] != job.as_dict()


def _scores_of(result: Result) -> dict[str, Any]:
    return {
        "part": result.scored_on,
        "top1": result.top1,
        "mean_per_class": result.mean_per_class,
        "per_class": result.per_class,
    }


def _done_well(result: Result | Segmented, scores: dict[str, Any]) -> dict[str, Any]:
    return {
        "status": "done",
        "scores": scores,
        "history": result.history,
        "parameters": {"total": result.total_parameters, "trained": result.trained_parameters},
        "cost": {
            "seconds": result.seconds,
            "peak_memory_bytes": result.peak_memory_bytes,
            "file_bytes": result.file_bytes,
        },
        "notes": result.notes,
    }
