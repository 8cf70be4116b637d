"""Workers: claims that hold, two runners on one folder, and what a kill leaves."""

from __future__ import annotations

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
from typing import Any

import pytest

from vpt.errors import DataError, VptError
from vpt.experiments import run_lock as lock_module
from vpt.experiments import worker as worker_module
from vpt.experiments.experiment import Experiment
from vpt.experiments.local_executor import LocalExecutor
from vpt.experiments.run_lock import RunLocks, heartbeat
from vpt.experiments.runner import run_experiment
from vpt.experiments.search import runnable_runs
from vpt.experiments.store import Record, Store
from vpt.experiments.worker import execute_runs, run_worker
from vpt.training import Callback

ExperimentOf = Callable[..., Experiment]


class TestClaims:
    def test_one_of_many_wins(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(16) as pool:
            taken = list(pool.map(lambda _: RunLocks(tmp_path).acquire("run"), range(64)))
        (won,) = [lock for lock in taken if lock is not None]
        assert won.refresh()
        won.release()
        assert not list(tmp_path.iterdir())
        assert RunLocks(tmp_path).acquire("run") is not None

    def test_a_dead_process_is_outbid_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        monkeypatch.setattr(os, "getpid", lambda: gone.pid)
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

    def test_a_living_or_distant_process_holds_until_it_is_silent_for_long(self, tmp_path: Path) -> None:
        mine, distant = RunLocks(tmp_path).acquire("mine"), tmp_path / "other.0"
        assert mine is not None
        distant.write_text("another-machine 1 token")
        for age, taken in ((60, False), (180, True)):
            for path in (mine.path, distant):
                os.utime(path, (time.time() - age, time.time() - age))
            assert [RunLocks(tmp_path).acquire(run) is not None for run in ("mine", "other")] == [taken] * 2

    def test_who_was_silent_hears_that_it_lost(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lock_module, "HEARTBEAT_INTERVAL", 0.01)
        lock, heard = RunLocks(tmp_path).acquire("run"), list[str]()
        assert lock is not None
        with heartbeat(lock, lambda: heard.append("lost")):
            before = lock.path.stat().st_mtime_ns
            while lock.path.stat().st_mtime_ns == before:
                time.sleep(0.01)
            (tmp_path / "run.1").write_text("another-machine 1 token")
            while not heard:
                time.sleep(0.01)


def runner(folder: Path) -> subprocess.Popen[bytes]:
    """`vpt bench run`, in a process group of its own."""
    code = "from vpt.cli.bench import command; command()"
    line = [sys.executable, "-c", code, "run", str(folder / "plan.toml"), "--out", str(folder / "out")]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are killed in another way there")
def test_killed_and_run_by_two_at_once_the_store_is_that_of_an_unbroken_run(
    folder: Path, done: Store, without_times: Callable[[Path], dict[str, Any]]
) -> None:
    runs = folder / "out" / "runs"
    first = runner(folder)
    try:
        while len(list(runs.glob("[!.]*.json"))) < 3 or not list((folder / "out" / "locks").glob("*")):
            assert first.poll() is None, first.communicate()
            time.sleep(0.01)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    written = {path: path.stat().st_mtime_ns for path in runs.glob("[!.]*.json")}
    assert 3 <= len(written) < 12

    both = [runner(folder), runner(folder)]
    said = [process.communicate(timeout=240)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "12 runs in" in said[0] and "12/12 runs" in said[0]
    assert {path: path.stat().st_mtime_ns for path in written} == written  # none of them was done again
    ours, theirs = (sorted(place.glob("[!.]*.json")) for place in (runs, done.folder / "runs"))
    assert [path.name for path in ours] == [path.name for path in theirs]
    for one, another in zip(ours, theirs, strict=True):
        assert without_times(one) == without_times(another)
    tuned = {path.name: path.read_bytes() for path in (folder / "out" / "tuned").iterdir()}
    assert tuned == {path.name: path.read_bytes() for path in (done.folder / "tuned").iterdir()}
    assert not list((folder / "out" / "locks").iterdir()) and not list((folder / "out" / "work").iterdir())


def test_halves_that_killed_workers_leave_are_cleared_away_at_the_end(done: Store, tmp_path: Path) -> None:
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


def test_a_worker_dies_another_takes_its_place_and_an_interrupt_ends_that_and_frees_its_run(
    experiment_of: ExperimentOf, folder: Path
) -> None:
    experiment = experiment_of(("epochs = 1", "epochs = 10000"))
    store, notes, killed = Store(folder / "out"), list[str](), list[str]()

    class Reaper(Callback):
        def on_progress(self, done: int, total: int, eta_seconds: float | None) -> None:
            for run_id, process in store.locks.held().items():
                if notes:
                    raise KeyboardInterrupt
                killed.append(run_id)
                with suppress(ProcessLookupError):  # dead already, and not buried yet
                    os.kill(process, signal.SIGKILL)

        def on_note(self, text: str) -> None:
            notes.append(text)

    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment, store.folder, LocalExecutor(), Reaper())
    ((run_id, record),) = store.records().items()
    assert {run_id} == set(killed) and record.status == "error"
    assert all("SIGKILL, perhaps for want of memory" in text for text in (record.error, *notes))
    assert not store.locks.held() and not multiprocessing.active_children()


def test_a_run_that_was_ended_meanwhile_is_not_done_again(
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


def test_an_error_that_another_runner_mended_is_seen(tmp_path: Path) -> None:
    """Two runners: one has read a record of an error, the other forgets it and does the run."""
    first, second = Store(tmp_path), Store(tmp_path)
    first.write(Record("abc", "error", "task", "method", "final", {}, "the disk was full"))
    assert first.records()["abc"].status == "error"
    assert second.clear_errors() == 1
    assert not first.records()
    second.write(Record("abc", "done", "task", "method", "final", {}))
    assert first.records()["abc"].status == "done"


def test_strays_among_claims_are_left_alone(tmp_path: Path) -> None:
    locks = RunLocks(tmp_path)
    for name in (".DS_Store", "run.0 (conflicted copy)", "run.txt"):
        (tmp_path / name).touch()
    lock = locks.acquire("run")
    assert lock is not None and locks.held() == {"run": os.getpid()}
    locks.force_release("run")
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_record_is_named(done: Store, tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "abc.json").write_text("{")
    with pytest.raises(DataError, match=r"abc\.json is damaged .* delete it"):
        store.records()
    with pytest.raises(DataError, match="holds no experiment"):
        store.load_experiment()


def test_an_unfinished_run_goes_on_from_its_checkpoint_and_begins_anew_where_its_data_were_moved(
    experiment_of: ExperimentOf, folder: Path
) -> None:
    class Stop(BaseException):
        pass

    def stopped(experiment: Experiment) -> list[int]:
        """The epochs that were done in this sitting, of a run that is stopped after the second."""
        epochs: list[int] = []

        def epoch(self: Any, epoch: Any) -> None:
            epochs.append(epoch.epoch)
            if epoch.epoch == 2:
                raise Stop

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker_module._HistoryCallback, "on_epoch", epoch)
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


def test_a_record_that_cannot_be_written_ends_the_runner_and_is_said(
    experiment_of: ExperimentOf, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "runs").write_text("in the way")
    with pytest.raises(VptError, match=r"worker 1 ended with exit code 8, and not over a run; the text above"):
        run_experiment(experiment_of(), folder / "out", LocalExecutor())
    assert "could not be written" in capfd.readouterr().err
    assert not list((folder / "out" / "locks").iterdir())
