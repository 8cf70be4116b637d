"""The folder of an experiment: one JSON record for each run, written atomically.

plan.json               the experiment
runs/ID.json            a record: config, scores, history, cost, provenance
locks/ID.N              the process that does a run
work/ID.run/            an unfinished run, with its checkpoint
tuned/ID.safetensors    the tuned files of final runs
features/               decoded images and features of the frozen backbone, shared by all runs
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from vpt.core.damage import damage_named
from vpt.core.io import sweep_abandoned, write_atomic
from vpt.core.legacy_keys import upgrade_run_record
from vpt.errors import DataError
from vpt.experiments.experiment import METRICS, Experiment, Run
from vpt.experiments.run_identity import run_id as hash_config
from vpt.experiments.run_lock import BatchLock, RunLocks

RECORD_FORMAT = 2


@dataclass(frozen=True)
class Record:
    """The record of a run.

    Attributes:
        id: Id of the run.
        status: "done"; "failed" where training diverged, a result like any other; "error" for an error that may not
            occur the next time, such as a full disk.
        task: Name of the task.
        method: Name of the row.
        stage: Stage of the run.
        config: All that decides the result.
        error: Message of the error; empty where there was none.
        scores: split; top1, mean_per_class and per_class, or miou, pixel_accuracy and per_class; between 0 and 1.
        history: An entry for each epoch.
        parameters: total and trainable.
        cost: seconds of training; wall_seconds of the last session with reading and scoring; peak_memory_bytes;
            file_bytes; energy_joules of the whole device where it is known.
        notes: What the user should know.
        images: Split -> number of images that were used; empty in records of earlier versions.
        provenance: Hardware, versions, and the time of the end.
        format: Version of the format of the record.
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
    images: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    format: int = RECORD_FORMAT

    @classmethod
    def of_run(cls, run: Run, status: Literal["done", "failed", "error"], **values: Any) -> Self:
        """Return the record of a run.

        Args:
            run: The run.
            status: Its status.
            **values: Other attributes by name.

        Returns:
            The record.
        """
        return cls(run.id, status, run.task.name, run.method, run.stage, dict(run.config), **values)

    @classmethod
    def of_error(cls, run: Run, error: str) -> Self:
        """Return the record of a run whose process ended, with a message."""
        return cls.of_run(run, "error", error=error, cost={"seconds": 0.0, "wall_seconds": 0.0})

    @property
    def metric(self) -> str | None:
        """Key of the metric in METRICS; None for a run that is not done."""
        return next((metric for metric in METRICS if metric in self.scores), None) if self.status == "done" else None

    @property
    def score(self) -> float | None:
        """Value of the metric, between 0 and 1; None for a run that is not done."""
        return None if self.metric is None else self.scores[self.metric]


class Store:
    """The folder of an experiment. Several processes may write to it at once."""

    def __init__(self, folder: Path) -> None:
        """Open a folder, which need not exist yet.

        Args:
            folder: The folder.
        """
        self.folder: Path = folder.resolve()
        self.locks: RunLocks = RunLocks(self.folder / "locks")
        self._records: dict[str, Record] = {}  # by the name of their file, without its suffix
        self._file_names: dict[str, str] = {}  # of records whose file has the id of an earlier format

    @property
    def feature_cache(self) -> Path:
        """Folder of decoded images and of features of the frozen backbone."""
        return self.folder / "features"

    def work_path(self, run_id: str) -> Path:
        """Return the path of the tuned file of an unfinished run; its run folder lies beside it."""
        return self.folder / "work" / f"{run_id}.safetensors"

    def tuned_path(self, run_id: str) -> Path:
        """Return the path of the tuned file of a final run."""
        return self.folder / "tuned" / f"{self._file_names.get(run_id, run_id)}.safetensors"

    def has_record(self, run_id: str) -> bool:
        """Return whether a run has a record."""
        return self._record_path(run_id).exists()

    def records(self) -> dict[str, Record]:
        """Return all records by run id. Only new ones are read."""
        paths = {path.stem: path for path in self._record_path("x").parent.glob("[!.]*.json")}
        # An error may have been forgotten, and the run done again, by another process.
        cached = {name: record for name, record in self._records.items() if record.status != "error"}
        found = ((name, cached.get(name) or _read_record(path)) for name, path in sorted(paths.items()))
        self._records = {name: record for name, record in found if record is not None}
        self._file_names = {record.id: name for name, record in self._records.items()}
        return {record.id: record for record in self._records.values()}

    def claim(self, runs: Sequence[Run]) -> BatchLock | None:
        """Lock runs that are done at once.

        Args:
            runs: The runs, of which another batch may have some, too.

        Returns:
            The locks; None where another process holds a run, or all runs have a record.
        """
        lock = self.locks.acquire_all(run.id for run in runs)
        if lock is not None and all(self.has_record(run.id) for run in runs):  # ended between a look and the lock
            lock.release()
            return None
        return lock

    def add(self, record: Record) -> None:
        """Write a record, unless another process has taken over the run and written it."""
        if self.has_record(record.id):
            self.remove_work(record.id)
        else:
            self.write(record)

    def write(self, record: Record) -> None:
        """Write a record; remove the checkpoint of the run unless it is to be tried again."""
        write_atomic(self._record_path(record.id), json.dumps(asdict(record), indent=1).encode())
        if record.status != "error":  # its checkpoint is worth keeping
            self.remove_work(record.id)

    def remove_records(self, run_ids: Iterable[str]) -> None:
        """Remove the records, the tuned files and the unfinished files of runs."""
        for run_id in run_ids:
            self._record_path(run_id).unlink(missing_ok=True)
            self.tuned_path(run_id).unlink(missing_ok=True)
            self.remove_work(run_id)

    def clear_errors(self) -> int:
        """Remove the records of runs that ended in an error, and return their number."""
        errors = [record.id for record in self.records().values() if record.status == "error"]
        for run_id in errors:
            self._record_path(run_id).unlink(missing_ok=True)
        return len(errors)

    def clean_up(self) -> None:
        """Remove what killed processes left: unfinished files, and the locks and files of runs that have a record.

        While a process does a run, no file of a run is removed: a batch of runs may be done again of which some have a
        record.
        """
        sweep_abandoned(self.folder)
        live = self.locks.live()
        for run_id in self.locks.held().keys() - live:
            if self.has_record(run_id):
                self.locks.force_release(run_id)
        if live:
            return
        for path in (self.folder / "work").glob("*"):
            run_id = path.name.lstrip(".").partition(".")[0]
            if self.has_record(run_id):
                self.remove_work(run_id)
                path.unlink(missing_ok=True)

    def save_experiment(self, experiment: Experiment) -> None:
        """Write plan.json, for the commands that read the folder alone."""
        write_atomic(self.folder / "plan.json", json.dumps(experiment.to_dict(), indent=1).encode())

    def load_experiment(self) -> Experiment:
        """Return the experiment that was last run here.

        Returns:
            The experiment that was last run here.

        Raises:
            DataError: There is none.
        """
        path = self.folder / "plan.json"
        if not path.is_file():
            raise DataError(f"{self.folder} holds no experiment; `vpt bench run PLAN --out {self.folder}` starts one")
        with damage_named(path, "plan", "give the plan again to `vpt bench run`", DataError):
            return Experiment.from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))

    def remove_work(self, run_id: str) -> None:
        """Remove the unfinished files of a run."""
        self.work_path(run_id).unlink(missing_ok=True)
        shutil.rmtree(self.work_path(run_id).with_suffix(".run"), ignore_errors=True)

    def _record_path(self, run_id: str) -> Path:
        return self.folder / "runs" / f"{self._file_names.get(run_id, run_id)}.json"


def _read_record(path: Path) -> Record | None:
    """Return a record; None where another process has just removed it."""
    try:
        with damage_named(path, "record", "delete it to have the run done again", DataError):
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.get("format", 1) < RECORD_FORMAT:
                values = upgrade_run_record(values)
                values["id"] = hash_config(values["config"])
            return Record(**values)
    except DataError:
        if not path.exists():
            return None
        raise
