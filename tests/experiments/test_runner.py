"""Workers: run locks, two runners on one folder, and the state after a kill."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vpt.errors import DataError, StorageError, VptError
from vpt.experiments import run_lock as lock_module
from vpt.experiments.experiment import Experiment
from vpt.experiments.run_lock import RunLocks, heartbeat
from vpt.experiments.running import worker as worker_module
from vpt.experiments.running.local_executor import LocalExecutor, _handle_dead_worker
from vpt.experiments.running.runner import ProgressReporter, run_experiment
from vpt.experiments.running.worker import execute_runs, run_worker
from vpt.experiments.selection import run_batches, runnable_runs
from vpt.experiments.store import Record, Store
from vpt.training import Callback, EpochMetrics, HistoryCallback

ExperimentOf = Callable[..., Experiment]


class TestRunLocks:
    def test_run_locks_with_many_threads_are_acquired_once(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(16) as pool:
            taken = list(pool.map(lambda _: RunLocks(tmp_path).acquire("run"), range(64)))
        (won,) = [lock for lock in taken if lock is not None]
        assert won.refresh()
        won.release()
        assert not list(tmp_path.iterdir())
        assert RunLocks(tmp_path).acquire("run") is not None

    def test_run_locks_of_dead_process_are_taken_over_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        monkeypatch.setattr(os, "getpid", lambda: ended.pid)
        first = RunLocks(tmp_path).acquire("run")
        monkeypatch.undo()
        assert first is not None
        assert RunLocks(tmp_path).acquire("run") is None  # dead, but not for long enough to be sure
        os.utime(first.path, (time.time() - 5, time.time() - 5))
        with ThreadPoolExecutor(16) as pool:
            taken = [lock for lock in pool.map(lambda _: RunLocks(tmp_path).acquire("run"), range(64)) if lock]
        (second,) = taken
        assert not first.refresh() and second.refresh()
        assert RunLocks(tmp_path).held() == {"run": os.getpid()}
        assert RunLocks(tmp_path).release_process(os.getpid()) == ["run"]
        assert not list(tmp_path.iterdir())

    def test_run_locks_of_silent_process_are_taken_over_after_a_timeout(self, tmp_path: Path) -> None:
        mine, distant = RunLocks(tmp_path).acquire("mine"), tmp_path / "other.0"
        assert mine is not None
        distant.write_text("another-machine 1 token")
        for age, taken in ((60, False), (180, True)):
            for path in (mine.path, distant):
                os.utime(path, (time.time() - age, time.time() - age))
            assert [RunLocks(tmp_path).acquire(run) is not None for run in ("mine", "other")] == [taken] * 2

    def test_run_locks_without_an_owner_are_taken_over_soon(self, tmp_path: Path) -> None:
        (tmp_path / "run.0").touch()
        assert RunLocks(tmp_path).acquire("run") is None  # it may be just beginning
        os.utime(tmp_path / "run.0", (time.time() - 5, time.time() - 5))
        lock = RunLocks(tmp_path).acquire("run")
        assert lock is not None and lock.generation == 1

    def test_run_locks_on_a_full_disk_leave_no_lock_without_an_owner(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class FullFile(io.StringIO):
            def write(self, text: str) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

        def open_full(path: Path, mode: str) -> FullFile:
            path.touch()
            return FullFile()

        monkeypatch.setattr(Path, "open", open_full)
        with pytest.raises(StorageError, match="the disk is full"):
            RunLocks(tmp_path).acquire("run")
        assert not list(tmp_path.iterdir())

    def test_acquire_all_on_a_full_disk_holds_no_lock(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        locks = RunLocks(tmp_path)
        acquire = locks.acquire

        def fill(run_id: str) -> Any:
            if run_id == "run":
                raise StorageError("the disk is full")
            return acquire(run_id)

        monkeypatch.setattr(locks, "acquire", fill)
        with pytest.raises(StorageError, match="the disk is full"):
            locks.acquire_all(["other", "run"])
        assert not locks.held()

    def test_heartbeat_of_lost_lock_calls_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lock_module, "HEARTBEAT_INTERVAL", 0.01)
        lock, calls = RunLocks(tmp_path).acquire_all(["other", "run"]), list[str]()
        assert lock is not None
        with heartbeat(lock, lambda: calls.append("lost")):
            before = (tmp_path / "run.0").stat().st_mtime_ns
            while (tmp_path / "run.0").stat().st_mtime_ns == before:
                time.sleep(0.01)
            (tmp_path / "run.1").write_text("another-machine 1 token")
            while not calls:
                time.sleep(0.01)


@pytest.fixture
def overlapping(experiment_of: ExperimentOf) -> Experiment:
    """Two rows of heads that have a run in common, on each task."""
    rows = '{ name = "Full", spec = "full" }, { name = "VPT", spec = "vpt(length=1)", learning_rate = [0.1, 0.01] }'
    grids = {"High": "[0.5, 0.1]", "Low": "[0.1, 0.05]"}
    linear = (f'{{ name = "{name}", spec = "linear", learning_rate = {rates} }}' for name, rates in grids.items())
    return experiment_of((rows, ", ".join(linear)))


def test_batch_with_a_run_of_a_locked_batch_is_not_claimed(overlapping: Experiment, tmp_path: Path) -> None:
    high, low = run_batches(overlapping, {})[:2]
    store, ids = Store(tmp_path), [{run.id for run in runs} for runs in (high, low)]
    assert len(ids[0] & ids[1]) == 1
    lock = store.claim(high)
    assert lock is not None and store.locks.held().keys() == ids[0]
    assert Store(tmp_path).claim(low) is None and store.locks.held().keys() == ids[0]
    lock.release()
    lock = store.claim(low)
    assert lock is not None and store.claim(high) is None and store.locks.held().keys() == ids[1]


def test_batch_of_a_dead_worker_has_one_error_and_no_lock(overlapping: Experiment, tmp_path: Path) -> None:
    """The other runs are batches of their own then."""
    store, runs = Store(tmp_path), run_batches(overlapping, {})[0]
    assert store.claim(runs) is not None
    process: Any = SimpleNamespace(name="worker 1", exitcode=-9, pid=os.getpid())
    _handle_dead_worker(process, overlapping, store, ProgressReporter(overlapping, store, Callback()))
    assert [(run_id, record.status) for run_id, record in store.records().items()] == [(runs[0].id, "error")]
    assert not store.locks.held() and (runs[1],) in run_batches(overlapping, store.records())


def start_bench_run(folder: Path) -> subprocess.Popen[bytes]:
    """`vpt bench run`, in a process group of its own."""
    code = "from vpt.cli.bench import command; command()"
    line = [sys.executable, "-c", code, "run", str(folder / "plan.toml"), "--out", str(folder / "out")]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are killed in another way there")
def test_bench_run_killed_and_resumed_by_two_processes_equals_one_run(
    folder: Path, done: Store, without_times: Callable[[Path], dict[str, Any]]
) -> None:
    runs = folder / "out" / "runs"
    first = start_bench_run(folder)
    try:
        while len(list(runs.glob("[!.]*.json"))) < 3 or not list((folder / "out" / "locks").glob("*")):
            assert first.poll() is None, first.communicate()
            time.sleep(0.01)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    written = {path: path.stat().st_mtime_ns for path in runs.glob("[!.]*.json")}
    assert 3 <= len(written) < 12

    both = [start_bench_run(folder), start_bench_run(folder)]
    outputs = [process.communicate(timeout=240)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert "12 runs in" in outputs[0] and "12/12 runs" in outputs[0]
    assert {path: path.stat().st_mtime_ns for path in written} == written  # none of them was done again
    ours, theirs = (sorted(directory.glob("[!.]*.json")) for directory in (runs, done.folder / "runs"))
    assert [path.name for path in ours] == [path.name for path in theirs]
    for one, another in zip(ours, theirs, strict=True):
        assert without_times(one) == without_times(another)
    tuned = {path.name: path.read_bytes() for path in (folder / "out" / "tuned").iterdir()}
    assert tuned == {path.name: path.read_bytes() for path in (done.folder / "tuned").iterdir()}
    assert not list((folder / "out" / "locks").iterdir()) and not list((folder / "out" / "work").iterdir())


def test_run_experiment_after_killed_workers_removes_partial_files(done: Store, tmp_path: Path) -> None:
    store, records = Store(tmp_path), done.records()
    half = tmp_path / "work" / f".{next(iter(records))}.safetensors.a1b2c3d4.safetensors"

    class Killed:
        def execute(self, experiment: Experiment, store: Store, board: Any) -> None:
            half.parent.mkdir(parents=True)
            half.write_bytes(b"half")
            for record in records.values():  # another worker did the run of the first one after it, and the rest
                store.write(record)

    assert run_experiment(done.load_experiment(), tmp_path, Killed()) == records
    assert not list(half.parent.iterdir()) and store.records() == records


def test_run_experiment_with_killed_worker_replaces_it_and_frees_its_lock(
    experiment_of: ExperimentOf, folder: Path
) -> None:
    experiment = experiment_of(("epochs = 1", "epochs = 10000"))
    store, notes, killed = Store(folder / "out"), list[str](), list[str]()

    class KillWorkers(Callback):
        def on_progress(self, done: int, total: int, eta_seconds: float | None) -> None:
            for run_id, process in store.locks.held().items():
                if notes:
                    raise KeyboardInterrupt
                if not process:  # the lock is just being written
                    continue
                killed.append(run_id)
                with suppress(ProcessLookupError):  # dead already, and not yet reaped
                    os.kill(process, signal.SIGKILL)

        def on_note(self, text: str) -> None:
            notes.append(text)

    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment, store.folder, LocalExecutor(), KillWorkers())
    ((run_id, record),) = store.records().items()
    assert {run_id} == set(killed) and record.status == "error"
    assert all("SIGKILL, perhaps for want of memory" in text for text in (record.error, *notes))
    assert not store.locks.held() and not multiprocessing.active_children()


def test_run_worker_of_runs_finished_meanwhile_skips_them(
    done: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    experiment, store, other = done.load_experiment(), Store(tmp_path / "out"), Store(tmp_path / "out")
    seen = iter([{}, other.records()])  # as if the first look had been before all that
    monkeypatch.setattr(store, "records", lambda: next(seen))
    before = {path: path.stat().st_mtime_ns for path in (store.folder / "runs").iterdir()}
    run_worker(experiment, store)
    assert {path: path.stat().st_mtime_ns for path in (store.folder / "runs").iterdir()} == before
    assert not runnable_runs(experiment, other.records())


def test_store_records_after_changes_by_another_store_are_current(tmp_path: Path) -> None:
    """Two runners: one has read a record of an error, the other forgets it and does the run."""
    first, second = Store(tmp_path), Store(tmp_path)
    first.write(Record("abc", "error", "task", "method", "final", {}, "the disk was full"))
    assert first.records()["abc"].status == "error"
    assert second.clear_errors() == 1
    assert not first.records()
    second.write(Record("abc", "done", "task", "method", "final", {}))
    assert first.records()["abc"].status == "done"


def test_run_locks_with_foreign_files_ignore_them(tmp_path: Path) -> None:
    locks = RunLocks(tmp_path)
    for name in (".DS_Store", "run.0 (conflicted copy)", "run.txt"):
        (tmp_path / name).touch()
    lock = locks.acquire("run")
    assert lock is not None and locks.held() == {"run": os.getpid()}
    locks.force_release("run")
    assert len(list(tmp_path.iterdir())) == 3


def test_store_of_damaged_record_names_it(done: Store, tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "abc.json").write_text("{")
    with pytest.raises(DataError, match=r"abc\.json is damaged .* delete it"):
        store.records()
    with pytest.raises(DataError, match="holds no experiment"):
        store.load_experiment()


def test_execute_runs_of_unfinished_run_resumes_unless_its_data_moved(
    experiment_of: ExperimentOf, folder: Path
) -> None:
    class Stop(BaseException):
        pass

    def stopped(experiment: Experiment) -> list[int]:
        """The epochs that were done in this sitting, of a run that is stopped after the second."""
        epochs: list[int] = []

        class StoppingCallback(HistoryCallback):
            def on_epoch(self, record: EpochMetrics) -> None:
                epochs.append(record.epoch)
                if record.epoch == 2:
                    raise Stop

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker_module, "HistoryCallback", StoppingCallback)
            with suppress(Stop):
                execute_runs(experiment, runnable_runs(experiment, {})[:1], store)
        return epochs

    store, experiment = Store(folder / "out"), experiment_of(("epochs = 1", "epochs = 3"))
    assert stopped(experiment) == [1, 2]
    assert stopped(experiment) == [3]
    shutil.rmtree(folder / "out")
    assert stopped(experiment) == [1, 2]
    (folder / "shade").rename(folder / "moved")
    moved = experiment_of(("epochs = 1", "epochs = 3"), ('data = "shade"', 'data = "moved"'))
    assert runnable_runs(moved, {})[0].id == runnable_runs(experiment, {})[0].id
    assert stopped(moved) == [1, 2]


def test_run_experiment_with_unwritable_record_fails_with_a_message(
    experiment_of: ExperimentOf, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "runs").write_text("in the way")
    with pytest.raises(VptError, match=r"worker 1 ended with exit code 8, and not over a run; the text above"):
        run_experiment(experiment_of(), folder / "out", LocalExecutor())
    assert "could not be written" in capfd.readouterr().err
    assert not list((folder / "out" / "locks").iterdir())


def test_clean_up_leaves_the_batch_of_a_live_process_alone(done: Store, tmp_path: Path) -> None:
    """A batch is done again as a whole, whichever runs have a record."""
    shutil.copytree(done.folder, tmp_path / "out")
    store = Store(tmp_path / "out")
    first, second = list(store.records())[:2]
    lock, files = store.locks.acquire(first), [store.work_path(run_id) for run_id in (first, second)]
    assert lock is not None
    for path in files:
        path.write_bytes(b"half")
    Store(store.folder).clean_up()
    assert lock.refresh() and all(path.exists() for path in files)
    lock.path.write_text("another-machine 1 token")
    os.utime(lock.path, (time.time() - 180, time.time() - 180))
    assert store.locks.live() == set() and store.locks.held() == {first: 0}
    Store(store.folder).clean_up()
    assert not lock.path.exists() and not any(path.exists() for path in files)
