"""The run folder beside a tuned file: whose it is, how far the run has come, and how it ended."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from vpt.core import environment
from vpt.core.io import write_atomic
from vpt.core.legacy_keys import upgrade
from vpt.errors import DataError, SpecError, TrainingError, TunedFileError
from vpt.model import tuned_file
from vpt.model.tuned_model import TunedModel
from vpt.plots import figures
from vpt.training import Callback, EpochMetrics, TrainingConfig, distributed
from vpt.training.job import Job, RunResult

ResultT = TypeVar("ResultT", bound=RunResult)
# How the names in a run folder begin; with a dot, what write_atomic was writing.
_RUN_FILE_PREFIXES = ("job.json", "checkpoint.", "metrics.", "result.json", "curve.", "confusion.", "pixels", ".")


class MetricsRecorder(Callback):
    """Callback that keeps metrics.jsonl in step with the checkpoint."""

    def __init__(self, path: Path) -> None:
        """Record to a file.

        Args:
            path: The file metrics.jsonl.
        """
        self.path = path
        self.history: list[EpochMetrics] = []

    def on_train_start(
        self, config: TrainingConfig, steps_per_epoch: int, completed_epochs: Sequence[EpochMetrics]
    ) -> None:
        self.history = list(completed_epochs)  # a kill between a checkpoint and its line may have left the line out

    def on_epoch(self, record: EpochMetrics) -> None:
        self.history.append(record)
        if distributed.rank() == 0:
            lines = (json.dumps(asdict(epoch)) + "\n" for epoch in self.history)
            write_atomic(self.path, "".join(lines).encode())


def open_run(job: Job, result_type: type[ResultT], callback: Callback, *, overwrite: bool = False) -> ResultT | None:
    """Join the other processes of the job; the result of this very job, if it is done.

    overwrite: begin anew, whatever is in the run folder. Raises SpecError when the folder belongs to another job, and
    for what no job has made: neither file nor folder of anybody else is replaced.
    """
    environment.keep_freed_memory()
    distributed.init_process_group()
    if distributed.rank() == 0:
        check_output_path(job, overwrite)
    if overwrite:
        if distributed.rank() == 0:
            shutil.rmtree(job.run_dir, ignore_errors=True)
            job.out.unlink(missing_ok=True)
        distributed.all_reduce_sum(0.0)  # the others wait, or they would find the old run finished
    finished = load_finished_result(job, result_type)
    if finished is not None:
        callback.on_note(f"{job.out} was made by this very job before; --overwrite does it again")
    return finished


def check_output_path(job: Job, overwrite: bool) -> None:
    """Raise SpecError where the tuned file or the run folder would replace what is not ours."""
    has_job_file = (job.run_dir / "job.json").exists()
    if job.out.suffix == job.run_dir.suffix or job.out.is_dir():
        raise SpecError(f"{job.out} cannot be the tuned file: it is a folder, or its run's; give another --out")
    # Killed while it read images, or while --overwrite deleted, a job has left some of its files without job.json.
    foreign = [path.name for path in job.run_dir.glob("*") if not path.name.startswith(_RUN_FILE_PREFIXES)]
    if foreign and not has_job_file:
        raise SpecError(f"{job.run_dir} is there and holds no run, but {foreign[0]!r}; give another --out")
    if not job.out.exists():
        return
    try:
        tuned_file.inspect(job.out)
    except TunedFileError as error:
        raise SpecError(
            f"{job.out} is there and is no tuned file, or a damaged one; give another --out, or move it away"
        ) from error
    if not has_job_file and not overwrite:
        raise SpecError(
            f"{job.out} is there, and what made it is not known, as {job.run_dir} is missing; give another --out, or "
            "--overwrite to replace it"
        )


def load_finished_result(job: Job, result_type: type[ResultT]) -> ResultT | None:
    """The result of this very job, if it is done. Raises SpecError when the folder belongs to another."""
    job_file = job.run_dir / "job.json"
    if job_file.exists():
        before, now = upgrade("job", json.loads(job_file.read_text()))["job"], job.to_dict()
        # A run of an earlier version lacks the options that came since; it was done as their defaults say.
        defaults = {option.name: option.default for option in fields(job) if option.default is not MISSING}
        flat_before, flat_now = _flatten({**defaults, **before}), _flatten(now)
        differing = [key for key in flat_now if flat_now[key] != flat_before.get(key)]
        if differing:
            raise SpecError(
                f"{job.run_dir} holds a run with other settings ("
                + ", ".join(f"{key}: {flat_before.get(key)} then, {flat_now[key]} now" for key in differing)
                + "); give another --out, or --overwrite to begin anew"
            )
    path = job.run_dir / "result.json"
    if not path.exists() or not job.out.exists():
        return None
    values = upgrade("result", json.loads(path.read_text()))
    return result_type(**values) if values["status"] == "done" else None


def write_job(job: Job, data_digest: str) -> None:
    """Write job.json with the digest of the images; refuse to go on with a run whose images have changed since."""
    path = job.run_dir / "job.json"
    if path.exists() and upgrade("job", json.loads(path.read_text()))["data_digest"] != data_digest:
        raise DataError(
            f"the images of {job.data} have changed since {job.run_dir} was begun; give another --out, or --overwrite"
        )
    record = {"job": job.to_dict(), "data_digest": data_digest, "started": time.time()}
    write_atomic(path, json.dumps(record, indent=1).encode())


def build_result(
    job: Job,
    result_type: type[ResultT],
    model: TunedModel,
    history: Sequence[EpochMetrics],
    scores: Mapping[str, float],
    **task_fields: Any,
) -> ResultT:
    """Write the tuned file, with `scores`, where this process is the one that writes; what came of the job.

    task_fields: the fields of `result_type` that are not the same for every job.
    """
    is_main = distributed.rank() == 0
    if is_main:
        tuned_file.save(model, job.out, scores=scores, split_options=job.split_options, save_dtype=job.save_dtype)
    counts = model.counts()
    return result_type(
        method=str(model.method),
        backbone=model.backbone.name,
        total_parameters=counts.total,
        trainable_parameters=counts.trainable,
        file=str(job.out),
        file_bytes=job.out.stat().st_size if is_main else 0,
        seconds=sum(epoch.seconds for epoch in history),
        history=[asdict(epoch) for epoch in history],
        job=job.to_dict(),
        environment=environment.describe(),
        **task_fields,
    )


def write_result(job: Job, result: RunResult) -> None:
    """Leave result.json: from now on the job is done."""
    write_atomic(job.run_dir / "result.json", json.dumps(asdict(result), indent=1).encode())


def describe_outputs(job: Job) -> str:
    """What a finished run leaves in its folder, for people."""
    drawn = ", curve.png, confusion.png" if figures.is_available() else f" ({figures.MATPLOTLIB_MISSING})"
    return f"{job.run_dir}/: metrics.jsonl, result.json{drawn}"


def write_failure(job: Job, error: TrainingError) -> None:
    """Leave result.json for a run that diverged."""
    failure = {"status": "failed", "error": str(error), "job": job.to_dict(), "environment": environment.describe()}
    write_atomic(job.run_dir / "result.json", json.dumps(failure, indent=1).encode())


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
