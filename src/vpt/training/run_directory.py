"""The run folder beside a tuned file: whose it is, how far the run has come, and how it ended."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from vpt.core import environment
from vpt.core.io import write_atomic
from vpt.errors import ArtifactError, DataError, SpecError, TrainingError
from vpt.model import tuned_file
from vpt.model.tuned_model import TunedModel
from vpt.plots import figures
from vpt.training import Epoch, Recipe, Watcher, distributed
from vpt.training.job import Job, Listener, Outcome

R = TypeVar("R", bound=Outcome)
# How the names in a run folder begin; with a dot, what write_atomic was writing.
_OURS = ("job.json", "checkpoint.", "metrics.", "result.json", "curve.", "confusion.", "pixels", ".")


@dataclass
class Recorder(Watcher):
    """Passes on what it hears, and keeps metrics.jsonl in step with the checkpoint."""

    listener: Listener
    path: Path
    history: list[Epoch] = field(default_factory=list)

    def begin(self, recipe: Recipe, steps_per_epoch: int, done: Sequence[Epoch]) -> None:
        self.history = list(done)  # a kill between a checkpoint and its line may have left the line out
        self.listener.begin(recipe, steps_per_epoch, done)

    def note(self, text: str) -> None:
        self.listener.note(text)

    def step(self, epoch: int, step: int, loss: float, step_size: float) -> None:
        self.listener.step(epoch, step, loss, step_size)

    def epoch(self, epoch: Epoch) -> None:
        self.history.append(epoch)
        if distributed.rank() == 0:
            lines = (json.dumps(asdict(record)) + "\n" for record in self.history)
            write_atomic(self.path, "".join(lines).encode())
        self.listener.epoch(epoch)


def open_run(job: Job, kind: type[R], listener: Listener, *, overwrite: bool = False) -> R | None:
    """Join the other processes of the job; the result of this very job, if it is done.

    overwrite: begin anew, whatever is in the run folder. Raises SpecError when the folder belongs to another job, and
    for what no job has made: neither file nor folder of anybody else is replaced.
    """
    environment.keep_freed_memory()
    distributed.start()
    if distributed.rank() == 0:
        _refuse_strangers(job, overwrite)
    if overwrite:
        if distributed.rank() == 0:
            shutil.rmtree(job.folder, ignore_errors=True)
            job.out.unlink(missing_ok=True)
        distributed.add_number(0.0)  # the others wait, or they would find the old run finished
    finished = finished_run(job, kind)
    if finished is not None:
        listener.note(f"{job.out} was made by this very job before; --overwrite does it again")
    return finished


def _refuse_strangers(job: Job, overwrite: bool) -> None:
    """Raise SpecError where the tuned file or the run folder would replace what is not ours."""
    claimed = (job.folder / "job.json").exists()
    if job.out.suffix == job.folder.suffix or job.out.is_dir():
        raise SpecError(f"{job.out} cannot be the tuned file: it is a folder, or its run's; give another --out")
    # Killed while it read images, or while --overwrite deleted, a job has left some of its files without job.json.
    strange = [path.name for path in job.folder.glob("*") if not path.name.startswith(_OURS)]
    if strange and not claimed:
        raise SpecError(f"{job.folder} is there and holds no run, but {strange[0]!r}; give another --out")
    if not job.out.exists():
        return
    try:
        tuned_file.inspect(job.out)
    except ArtifactError as error:
        raise SpecError(
            f"{job.out} is there and is no tuned file, or a damaged one; give another --out, or move it away"
        ) from error
    if not claimed and not overwrite:
        raise SpecError(
            f"{job.out} is there, and what made it is not known, as {job.folder} is missing; give another --out, or "
            "--overwrite to replace it"
        )


def finished_run(job: Job, kind: type[R]) -> R | None:
    """The result of this very job, if it is done. Raises SpecError when the folder belongs to another."""
    claimed = job.folder / "job.json"
    if claimed.exists():
        before, now = json.loads(claimed.read_text())["job"], job.as_dict()
        # A run of an earlier version lacks the options that came since; it was done as their defaults say.
        defaults = {option.name: option.default for option in fields(job) if option.default is not MISSING}
        flat_before, flat_now = _flat({**defaults, **before}), _flat(now)
        differing = [key for key in flat_now if flat_now[key] != flat_before.get(key)]
        if differing:
            raise SpecError(
                f"{job.folder} holds a run with other settings ("
                + ", ".join(f"{key}: {flat_before.get(key)} then, {flat_now[key]} now" for key in differing)
                + "); give another --out, or --overwrite to begin anew"
            )
    path = job.folder / "result.json"
    if not path.exists() or not job.out.exists():
        return None
    values = json.loads(path.read_text())
    return kind(**values) if values["status"] == "done" else None


def claim(job: Job, images: str) -> None:
    """Write job.json with the digest of the images; refuse to go on with a run whose images have changed since."""
    path = job.folder / "job.json"
    if path.exists() and json.loads(path.read_text())["images"] != images:
        raise DataError(
            f"the images of {job.data} have changed since {job.folder} was begun; give another --out, or --overwrite"
        )
    write_atomic(path, json.dumps({"job": job.as_dict(), "images": images, "begun": time.time()}, indent=1).encode())


def conclude(
    job: Job, kind: type[R], model: TunedModel, history: Sequence[Epoch], scores: Mapping[str, float], **more: Any
) -> R:
    """Write the tuned file, with `scores`, where this process is the one that writes; what came of the job.

    more: the fields of `kind` that are not the same for every job.
    """
    first = distributed.rank() == 0
    if first:
        tuned_file.save(model, job.out, scores=scores, cut=job.cut, storage=job.storage)
    counts = model.counts()
    return kind(
        method=str(model.method),
        backbone=model.backbone.name,
        total_parameters=counts.total,
        trained_parameters=counts.trained,
        file=str(job.out),
        file_bytes=job.out.stat().st_size if first else 0,
        seconds=sum(epoch.seconds for epoch in history),
        history=[asdict(epoch) for epoch in history],
        job=job.as_dict(),
        machine=environment.describe(),
        **more,
    )


def record(job: Job, outcome: Outcome) -> None:
    """Leave result.json: from now on the job is done."""
    write_atomic(job.folder / "result.json", json.dumps(asdict(outcome), indent=1).encode())


def contents(job: Job) -> str:
    """What a finished run leaves in its folder, for people."""
    drawn = ", curve.png, confusion.png" if figures.available() else f" ({figures.MISSING})"
    return f"{job.folder}/: metrics.jsonl, result.json{drawn}"


def record_failure(job: Job, error: TrainingError) -> None:
    """Leave result.json for a run that diverged."""
    failure = {"status": "failed", "error": str(error), "job": job.as_dict(), "machine": environment.describe()}
    write_atomic(job.folder / "result.json", json.dumps(failure, indent=1).encode())


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
