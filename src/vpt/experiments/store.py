"""The folder of a comparison: one record per run, written in one step, and nothing that cannot be read by hand.

plan.json       the plan, resolved
runs/ID.json    a record: config, scores, history, cost, provenance
claims/ID.N     who is at work on a run
work/ID.run/    an unfinished run, with its checkpoint
tuned/ID.safetensors    the tuned files of final runs
features/       features of the frozen backbone, shared by all runs
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from vpt.core.io import write_atomic
from vpt.errors import DataError
from vpt.experiments.experiment import METRICS, Plan
from vpt.experiments.run_lock import Claims

FORMAT = 1


@dataclass(frozen=True)
class Record:
    """What came of a run.

    status: "done"; "failed" where training diverged, a result like any other; "error" for what may go well the next
    time, such as a full disk. error: what was said then.
    scores: part; top1, mean_per_class and per_class, or miou, pixel_accuracy and per_class; shares between 0 and 1.
    history: one entry per epoch.
    parameters: total, trained. cost: seconds of training, wall_seconds of the last sitting with reading and scoring,
    peak_memory_bytes, file_bytes, energy_joules of the whole device where it tells.
    provenance: hardware, versions, and when it ended.
    """

    id: str
    status: Literal["done", "failed", "error"]
    task: str
    method: str
    stage: str
    config: dict[str, Any]
    error: str = ""
    scores: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def metric(self) -> str | None:
        """What was measured, a key of METRICS; None for a run that did not end well."""
        return next((metric for metric in METRICS if metric in self.scores), None) if self.status == "done" else None

    @property
    def score(self) -> float | None:
        """How much of it, between 0 and 1; None for a run that did not end well."""
        return None if self.metric is None else self.scores[self.metric]


class Store:
    """The folder, read as it grows: several processes may write to it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.claims = Claims(self.folder / "claims")
        self._known: dict[str, Record] = {}

    @property
    def features(self) -> Path:
        """The cache of frozen features."""
        return self.folder / "features"

    def out(self, run_id: str) -> Path:
        """Where a run's tuned file is made; its run folder lies beside it."""
        return self.folder / "work" / f"{run_id}.safetensors"

    def tuned(self, run_id: str) -> Path:
        """Where a final run's tuned file stays."""
        return self.folder / "tuned" / f"{run_id}.safetensors"

    def has(self, run_id: str) -> bool:
        """Whether there is a record of this run."""
        return self._path(run_id).exists()

    def records(self) -> dict[str, Record]:
        """All records by id. Only new ones are read."""
        there = {path.stem: path for path in self._path("x").parent.glob("[!.]*.json")}
        # An error may have been forgotten, and the run done again, by another process.
        kept = {name: record for name, record in self._known.items() if record.status != "error"}
        found = ((name, kept.get(name) or _read(path)) for name, path in sorted(there.items()))
        self._known = {name: record for name, record in found if record is not None}
        return self._known

    def write(self, record: Record) -> None:
        """Add a record, and clear away what the run left unless it is to be tried again."""
        write_atomic(self._path(record.id), json.dumps(asdict(record), indent=1).encode())
        if record.status != "error":  # its checkpoint is worth keeping
            self.clear(record.id)

    def forget_errors(self) -> int:
        """Let the runs that ended in an error be tried again; how many there were."""
        errors = [record.id for record in self.records().values() if record.status == "error"]
        for run_id in errors:
            self._path(run_id).unlink(missing_ok=True)
        return len(errors)

    def tidy(self) -> None:
        """Clear away what killed processes left of runs that have a record."""
        for run_id in self.claims.held():
            if self.has(run_id):
                self.claims.end(run_id)
        for path in (self.folder / "work").glob("*"):
            run_id = path.name.lstrip(".").partition(".")[0]
            if self.has(run_id):
                self.clear(run_id)
                path.unlink(missing_ok=True)  # half a file, under a name of its own

    def save_plan(self, plan: Plan) -> None:
        """Keep the plan, for the commands that read the folder alone."""
        write_atomic(self.folder / "plan.json", json.dumps(plan.as_dict(), indent=1).encode())

    def plan(self) -> Plan:
        """The plan last run here. Raises DataError where there is none."""
        path = self.folder / "plan.json"
        if not path.is_file():
            raise DataError(f"{self.folder} holds no comparison; `vpt bench run PLAN --out {self.folder}` begins one")
        return Plan.from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))

    def clear(self, run_id: str) -> None:
        """Remove what a run left on its way."""
        self.out(run_id).unlink(missing_ok=True)
        shutil.rmtree(self.out(run_id).with_suffix(".run"), ignore_errors=True)

    def _path(self, run_id: str) -> Path:
        return self.folder / "runs" / f"{run_id}.json"


def _read(path: Path) -> Record | None:
    """None where another process has just forgotten it."""
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DataError(f"the record {path} is damaged ({error}); delete it to have the run done again") from error
