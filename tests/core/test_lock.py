"""One process writes an output; another one is told who does, and a killed one holds no lock."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vpt.core import lock
from vpt.core.io import temporary_path
from vpt.core.lock import lock_output
from vpt.errors import StorageError

HOLDER = """
import os, sys, time
from pathlib import Path
from vpt.core.lock import lock_output
with lock_output(Path(sys.argv[1])):
    reading, writing = os.pipe()
    if "fork" in sys.argv and os.fork() == 0:  # as workers that read images do
        os.write(writing, b"x")  # it has let go of the lock
        time.sleep(60)
    if "fork" in sys.argv:
        os.read(reading, 1)
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(output: Path, *words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(output), *words], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_lock_output_of_another_process_says_who_holds_it(tmp_path: Path) -> None:
    holder = start_holder(tmp_path / "a.run")
    try:
        with pytest.raises(StorageError) as refused, lock_output(tmp_path / "a.run"):
            pytest.fail("two processes hold one lock")
        assert f"a.run is being written by process {holder.pid} on " in str(refused.value)
        assert ", since 20" in str(refused.value) and "choose another output" in str(refused.value)
        with lock_output(tmp_path / "b.run"):  # another output is free
            pass
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="fork and kill -9 are Unix matters")
def test_lock_output_of_a_killed_process_is_free_though_its_workers_live(tmp_path: Path) -> None:
    left = temporary_path(tmp_path / "a.run" / "job.json")
    holder = start_holder(tmp_path / "a.run", "fork")
    try:
        holder.kill()
        holder.wait()
        left.parent.mkdir()
        left.write_bytes(b"half")
        with lock_output(tmp_path / "a.run"):
            assert not left.exists()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()


def test_lock_output_leaves_nothing_and_is_free_again(tmp_path: Path) -> None:
    for _ in range(2):
        with lock_output(tmp_path / "new" / "a.run"):
            assert [path.name for path in (tmp_path / "new").iterdir()] == [".a.run.lock"]
            with pytest.raises(StorageError), lock_output(tmp_path / "new" / ".." / "new" / "a.run"):
                pytest.fail("two threads hold one lock")
        assert not list((tmp_path / "new").iterdir())
    with pytest.raises(ValueError, match="a fault"), lock_output(tmp_path / "a"):
        raise ValueError("a fault")
    with lock_output(tmp_path / "a"):
        pass


def test_lock_output_without_locks_in_the_file_system_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLock(lock.FileLock):  # type: ignore[misc,valid-type,unused-ignore]
        def acquire(self, *_: object, **__: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "FileLock", NoLock)
    kept = temporary_path(tmp_path / "a")
    kept.write_bytes(b"perhaps of another process at work")
    with lock_output(tmp_path / "a"):
        assert kept.exists()


def test_lock_output_below_a_file_says_that_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="could not be written"), lock_output(tmp_path / "file" / "a.run"):
        pytest.fail("held")
