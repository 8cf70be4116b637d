"""Files are written whole or not at all, and what killed writers leave is hidden and removed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vpt.core import array_file, io
from vpt.core.io import (
    describe_write_error,
    move_into_place,
    sweep,
    sweep_abandoned,
    temporary_path,
    write_atomic,
    write_atomic_with,
)
from vpt.errors import StorageError


def abandoned(path: Path) -> Path:
    """A temporary file of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    name = temporary_path(path).name.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    path.with_name(name).write_bytes(b"half")
    return path.with_name(name)


def test_write_atomic_leaves_the_file_alone(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "a.json", b"first")
    write_atomic(tmp_path / "new" / "a.json", b"second")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
    assert (tmp_path / "new" / "a.json").read_bytes() == b"second"
    if os.name != "nt":
        plain = tmp_path / "plain"
        plain.touch()
        assert (tmp_path / "new" / "a.json").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("error", [ValueError("a fault"), KeyboardInterrupt()])
def test_write_atomic_with_a_fault_keeps_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def write(file: object) -> None:
        assert len(list(tmp_path.iterdir())) == 2
        raise error

    with pytest.raises(type(error)):
        write_atomic_with(path, write)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_temporary_path_is_hidden_and_of_no_known_suffix(tmp_path: Path) -> None:
    names = {temporary_path(tmp_path / "a.safetensors").name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith(".a.safetensors.") and name.endswith(".part") for name in names)


def test_write_atomic_syncs_the_file_and_then_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = list[str]()
    real = os.fsync

    def fsync(handle: int) -> None:
        name = str(Path(f"/proc/self/fd/{handle}").readlink()) if sys.platform == "linux" else ""
        synced.append(name)
        assert (tmp_path / "a.json").exists() == bool(len(synced) > 1)  # the folder after the file has its name
        real(handle)

    monkeypatch.setattr(io.os, "fsync", fsync)
    write_atomic(tmp_path / "a.json", b"{}")
    if os.name == "nt":
        return
    assert len(synced) == 2
    if sys.platform == "linux":
        assert synced[0].endswith(".part") and synced[1] == str(tmp_path)
    (tmp_path / "a.json").unlink()
    write_atomic(tmp_path / "a.json", b"{}", sync=False)
    assert len(synced) == 2


def test_move_into_place_on_a_folder_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError

    tmp = temporary_path(tmp_path / "a")
    tmp.write_bytes(b"whole")
    monkeypatch.setattr(io.os, "open", refuse)
    move_into_place(tmp, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_sweep_removes_what_is_of_the_output_alone(tmp_path: Path) -> None:
    output, folder = tmp_path / "a.safetensors", tmp_path / "a.run"
    (folder / "search").mkdir(parents=True)
    own = [temporary_path(path) for path in (output, folder / "job.json", folder / "search" / "features.npy")]
    others = [
        temporary_path(tmp_path / "a.safetensors.backup"),
        temporary_path(tmp_path / "b.safetensors"),
        tmp_path / ".a.safetensors.mine.part",
        folder / "job.json",
    ]
    for path in (*own, *others):
        path.write_bytes(b"half")
    temporary_path(folder / "archive.zip").mkdir()
    for path in (output, folder, tmp_path / "missing"):
        sweep(path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(others)
    assert list(folder.iterdir()) != [] and not list(folder.glob(".*"))


def test_sweep_abandoned_spares_processes_that_live(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    left = abandoned(tmp_path / "runs" / "x.json")
    mine = temporary_path(tmp_path / "plan.json")
    mine.write_bytes(b"half")
    foreign = left.with_name(left.name.replace(io.host_digest(), "0" * 8))  # of another machine
    foreign.write_bytes(b"half")
    sweep_abandoned(tmp_path)
    assert left.exists(), "one that was written to a moment ago may be of another container"
    then = time.time() - 60
    for path in (left, mine, foreign):
        os.utime(path, (then, then))
    sweep_abandoned(tmp_path)
    assert not left.exists() and mine.exists() and foreign.exists()
    sweep_abandoned(tmp_path / "missing")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_write_atomic_with_a_full_disk_says_so(tmp_path: Path) -> None:
    def write(file: object) -> None:
        with Path("/dev/full").open("wb") as full:
            full.write(b"x")

    with pytest.raises(StorageError, match=r"the disk is full, .* MB are free; free some space"):
        write_atomic_with(tmp_path / "a", write, size=10)
    assert not list(tmp_path.iterdir())


def test_full_disk_inside_a_writer_is_told_of_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, size: int) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(array_file, "_checksum", fail)
    with pytest.raises(StorageError) as caught:
        array_file.write_array(tmp_path / "features.npy", np.zeros(3))
    assert str(caught.value).startswith(f"{tmp_path / 'features.npy'} could not be written: the disk is full")
    inside = temporary_path(tmp_path / "folder") / "a.bin"
    text = describe_write_error(inside, OSError(errno.EROFS, "Read-only file system"))
    assert text.startswith(f"{tmp_path / 'folder' / 'a.bin'} could not be written: Read-only file system")


def test_write_atomic_removes_what_a_killed_writer_of_the_file_left(tmp_path: Path) -> None:
    left = [abandoned(tmp_path / "a.safetensors"), abandoned(tmp_path / "b.safetensors")]
    for path in left:
        os.utime(path, (1, 1))
    write_atomic(tmp_path / "a.safetensors", b"whole")
    assert sorted(tmp_path.iterdir()) == sorted((left[1], tmp_path / "a.safetensors"))
