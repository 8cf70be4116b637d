"""The run directory beside a tuned file: its job, its progress and its result."""

import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vpt.core import environment
from vpt.core.damage import damage_named
from vpt.core.io import empty_folder, write_atomic
from vpt.core.json_values import to_finite
from vpt.core.legacy_keys import upgrade, upgrade_result
from vpt.core.text import to_toml
from vpt.errors import DataError, SpecError, TrainingError, TunedFileError
from vpt.model.header import inspect
from vpt.training import distributed
from vpt.training.callbacks import Callback, EpochMetrics, HistoryCallback
from vpt.training.config import TrainingConfig
from vpt.training.job import Job, RunResult
from vpt.training.run_inputs import digest_inputs, input_files, stamp_inputs
from vpt.training.task_config import TaskConfig

# Prefixes of the files of a run directory; a dot begins the temporary files of write_atomic.
_RUN_FILE_PREFIXES = (
    "job.json", "run.toml", "checkpoint.", "metrics.", "result.json", "curve.", "confusion.", "scatter.", "classes.",
    "examples.", "report.", "page.",
    "pixels", ".", "decisions.jsonl", "search", "fold-",
)  # fmt: skip


class MetricsRecorder(HistoryCallback):
    """Callback that keeps metrics.jsonl in step with the checkpoint.

    It writes the whole history, when training goes on and after each epoch: a kill between a checkpoint and its line
    has left the line out.
    """

    def __init__(self, path: Path) -> None:
        """Record to a file.

        Args:
            path: The file metrics.jsonl.
        """
        super().__init__()
        self.path = path

    def on_train_start(  # noqa: D102
        self, config: TaskConfig, steps_per_epoch: int, completed_epochs: Sequence[EpochMetrics]
    ) -> None:
        super().on_train_start(config, steps_per_epoch, completed_epochs)
        if completed_epochs:
            self._write()

    def on_epoch(self, record: EpochMetrics) -> None:  # noqa: D102
        super().on_epoch(record)
        self._write()

    def _write(self) -> None:
        if distributed.rank() == 0:
            lines = (json.dumps(to_finite(asdict(epoch))) + "\n" for epoch in self.history)
            write_atomic(self.path, "".join(lines).encode())


def open_run(job: Job, callback: Callback, *, overwrite: bool = False) -> RunResult | None:
    """Open the run directory of a job in all its processes.

    A SpecError is raised if the directory belongs to a job with other settings, or if a file or folder that is no run
    is in the way.

    Args:
        job: The job.
        callback: Receiver of notes.
        overwrite: True begins anew; the tuned file stays until another one replaces it. Default: False.

    Returns:
        The result of the job if it is finished, or None.
    """
    environment.keep_freed_memory()
    distributed.init_process_group()
    if distributed.rank() == 0:
        check_output_path(job, overwrite)
        if overwrite:
            empty_folder(job.run_dir)  # the tuned file stays until another one replaces it
    distributed.all_reduce_sum(0.0)  # the others wait, or they might find the old run finished
    finished = load_finished_result(job)
    if finished is not None:
        callback.on_note(f"{job.out} was made by this very job before; --overwrite does it again")
    return finished


def check_output_path(job: Job, overwrite: bool) -> None:
    """Check that the tuned file and the run directory replace nothing but a run.

    Args:
        job: The job.
        overwrite: True accepts a tuned file without its run directory.

    Raises:
        SpecError: Another file or folder is in the way, or the run directory is that of another tuned file.
    """
    job_file = job.run_dir / "job.json"
    has_job_file = job_file.exists()
    if job.out.suffix == job.run_dir.suffix or job.out.is_dir():
        raise SpecError(f"{job.out} cannot be the tuned file: it is a folder, or its run's; give another --out")
    # Killed while it read images, a job has left some of its files without job.json.
    foreign = [path.name for path in job.run_dir.glob("*") if not path.name.startswith(_RUN_FILE_PREFIXES)]
    if foreign and not has_job_file:
        raise SpecError(f"{job.run_dir} already exists and is not a vpt run directory (it contains {foreign[0]!r}); "
                        "choose another --out")  # fmt: skip
    with suppress(DataError):  # a damaged record may be overwritten
        record = read_job_record(job)
        owner = job.out.name if record is None else Path(record["job"].get("out", job.out)).name
        # Names that differ after their last dot alone have one run directory; a file that was renamed keeps its own.
        if owner != job.out.name and job.out.with_name(owner).exists():
            raise SpecError(f"{job.run_dir} holds the run of {owner}; choose another name for --out")
    if not job.out.exists():
        return
    try:
        inspect(job.out)  # a method that this vpt does not know makes no file a damaged one
    except TunedFileError as error:
        raise SpecError(
            f"{job.out} already exists and is no tuned file, or a damaged one; choose another --out, or move it away"
        ) from error
    # A cross-validation that was begun anew has no job.json until all folds are trained.
    if not (has_job_file or overwrite or any(job.run_dir.glob("fold-*"))):
        raise SpecError(
            f"{job.out} already exists and {job_file} is missing, so its settings are not known; "
            "choose another --out, or replace it with --overwrite (again, if that was interrupted)"
        )


def load_finished_result(job: Job) -> RunResult | None:
    """Load the result of a job.

    Args:
        job: The job.

    Returns:
        The result, or None if the job is not finished.

    Raises:
        SpecError: The run directory belongs to a job with other settings.
    """
    record, path = read_job_record(job), job.run_dir / "result.json"
    if record is not None:
        # A run of an earlier version lacks the options that were added since; it ran with their defaults.
        # Its weight decay was for all tensors. Unfinished, it cannot go on by today's default rule.
        is_default = path.exists() and job.config.training.decay == TrainingConfig.decay
        earlier = {**flatten(job.default_dict()), "config.decay": TrainingConfig.decay if is_default else "all"}
        before, now = {**earlier, **flatten(record["job"])}, flatten(job.to_dict())
        if before.get("ridge") is None:
            before["ridge"] = "none" if now.get("ridge") == "none" else None
        for values in (before, now):  # "photos/" is "photos"
            values["data"] = os.path.normpath(values["data"])
        differing = [f"{key}: {before.get(key)} then, {now[key]} now" for key in now if now[key] != before.get(key)]
        if differing:
            raise SpecError(
                f"{job.run_dir} holds a run with other settings ({', '.join(differing)}); give another --out, or "
                "--overwrite to begin anew"
            )
    if not path.exists() or not job.out.exists():
        return None
    with damage_named(path, "result", "--overwrite does the run again", DataError):
        values = upgrade_result(json.loads(path.read_text(encoding="utf-8")))
        return RunResult(**values) if values["status"] == "done" else None


def read_job_record(job: Job) -> dict[str, Any] | None:
    """Return the contents of the job.json of a job.

    Args:
        job: The job.

    Returns:
        The contents, in today's layout, or None where there is none.
    """
    path = job.run_dir / "job.json"
    if not path.exists():
        return None
    with damage_named(path, "record of the run", "--overwrite begins anew", DataError):
        record = upgrade("job", json.loads(path.read_text(encoding="utf-8")))
        dict(record["job"]["config"])  # raises where there is none
        return record


def recorded_batch_size(job: Job) -> int | None:
    """Return the batch size of the run in the run directory of a job.

    Args:
        job: The job.

    Returns:
        The batch size, or None where there is no run.
    """
    record = read_job_record(job)
    return None if record is None else int(record["job"]["config"]["batch_size"])


def files_may_differ(job: Job) -> bool:
    """Return True if files that a run reads have changed since it was done, or were written again as they are.

    Args:
        job: The job of the run.

    Returns:
        False for runs of earlier versions, which did not record their files.
    """
    record = read_job_record(job)
    return record is not None and record.get("files", stamp_inputs(job)) != stamp_inputs(job)


def write_job(job: Job, data_digest: str) -> None:
    """Write job.json, and run.toml for `vpt tune --config`.

    Args:
        job: The job.
        data_digest: Digest of the images.

    Raises:
        DataError: The images, or the files that training begins with, have changed since an interrupted run.
    """
    before, inputs, digests = read_job_record(job) or {}, input_files(job), digest_inputs(job)
    recorded = before.get("inputs", digests)
    changed = [f"the file {path} ({name}) has" for name, path in inputs.items() if recorded[name] != digests[name]]
    if before.get("data_digest", data_digest) != data_digest:
        changed.append(f"the images of {job.data} have")
    if changed:
        raise DataError(
            f"{' and '.join(changed)} changed since {job.run_dir} was begun; give another --out, or --overwrite"
        )
    values = job.to_dict()
    record = {
        "job": values,
        "data_digest": data_digest,
        "files": stamp_inputs(job),
        "inputs": digests,
        "started": time.time(),
    }
    write_atomic(job.run_dir / "job.json", json.dumps(record, indent=1).encode())
    options = {**values, **values["config"], "task": job.config.task}
    write_atomic(job.run_dir / "run.toml", to_toml({k: v for k, v in options.items() if k not in ("config", "test")}))


def write_result(job: Job, result: RunResult) -> None:
    """Write result.json, which marks the job as finished.

    Args:
        job: The job.
        result: Its result.
    """
    write_atomic(job.run_dir / "result.json", json.dumps(to_finite(asdict(result)), indent=1).encode())


def repeat_command(job: Job, *options: str) -> str:
    """Return the command that does a job again for another tuned file, without a search.

    Args:
        job: The job, on data that are not in memory.
        *options: Options that replace those of the job.

    Returns:
        A command for the shell.
    """
    config = str(job.run_dir / "run.toml")
    return shlex.join(["vpt", "tune", "--config", config, *options, "--out", "again.safetensors"])


def describe_outputs(run_dir: str | Path) -> str:
    """Return the list of files in a run directory, for the summary of a run.

    Args:
        run_dir: The run directory.

    Returns:
        One line.
    """
    pictures = ("search.png", "curve.png", "confusion.png", "scatter.png", "classes.png", "examples.png")
    names = ("run.toml", "metrics.jsonl", "decisions.jsonl", "result.json", "report.html", "page.html", *pictures)
    return f"{run_dir}/: {', '.join(name for name in names if (Path(run_dir) / name).exists())}"


def write_failure(job: Job, error: TrainingError) -> None:
    """Write result.json for a run that diverged.

    Args:
        job: The job.
        error: The error.
    """
    failure = {"status": "failed", "error": str(error), "job": job.to_dict(), "environment": environment.describe()}
    write_atomic(job.run_dir / "result.json", json.dumps(failure, indent=1).encode())


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: {"config": {"epochs": 2}} becomes {"config.epochs": 2}.

    Args:
        values: Nested mappings.
        prefix: Prefix of all keys. Default: none.

    Returns:
        One mapping.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value})
    return flat
