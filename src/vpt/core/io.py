"""Atomic file writes: a crash, a kill or a full disk never leaves a partial file.

A file is written under a temporary name beside it, hidden and of a suffix that no reader accepts, and moved to its name
when it is complete. What a killed process leaves under such names is removed by the next one that writes there.
"""

import errno
import glob
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from vpt.core.process import host_digest, is_alive
from vpt.errors import StorageError

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.part", re.DOTALL)
_ABANDONED_AFTER = 3.0  # seconds without a change: a process that seems gone may be one of another container


def write_atomic(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replace a file in one step.

    Args:
        path: The file to write. Missing parent folders are created.
        content: The new content.
        sync: False leaves it to the system when the disk has the file, so that a power failure can lose it. Default:
            True.
    """
    write_atomic_with(path, lambda file: file.write(content), size=len(content), sync=sync)


def write_atomic_with(
    path: Path, write: Callable[[BinaryIO], object], size: int | None = None, *, sync: bool = True
) -> None:
    """Let a function write a temporary file, then move it to its final path in one step.

    Args:
        path: The file to write. Missing parent folders are created.
        write: Called with the temporary file, which is open for writing.
        size: Expected size in bytes, for the error message of a full disk.
        sync: False is for many files: the disk has them when the system sees fit, and what a killed process left of one
            is for `sweep` to remove. Default: True.

    Raises:
        StorageError: The disk is full, the folder cannot be written, or `path` is a device. `path` is unchanged.
    """
    tmp = temporary_path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise StorageError(f"{path} is not a regular file; choose another path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if sync:
            _remove(other for other in _find_beside(path) if _is_abandoned(other))
        with tmp.open("xb") as file:
            write(file)
        move_into_place(tmp, path, size=size, sync=sync)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(describe_write_error(path, error, size)) from error
    finally:
        with suppress(OSError):  # the error of the write says more
            tmp.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a new temporary name for a file: hidden, in the same folder, with a suffix that no reader accepts.

    Args:
        path: The file.

    Returns:
        The path, which `sweep` finds.
    """
    return path.with_name(f".{path.name}.{host_digest()}-{os.getpid()}-{secrets.token_hex(4)}.part")


def move_into_place(tmp: Path, path: Path, *, size: int | None = None, sync: bool = True) -> None:
    """Move a complete file to its final path, so that a power failure leaves the old file or the new one.

    Args:
        tmp: The complete file, which no process has open.
        path: The final path, in the same file system.
        size: Size in bytes, for the error message of a full disk. Default: left out of it.
        sync: False leaves it to the system when the disk has the file. Default: True.

    Raises:
        StorageError: The disk is full, or the path cannot be replaced.
    """
    try:
        if sync:
            with tmp.open("r+b") as file:
                os.fsync(file.fileno())
        tmp.replace(path)
        if sync:
            _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(describe_write_error(path, error, size)) from error


def make_folder(folder: Path) -> None:
    """Create a folder and its parents where they are missing.

    Args:
        folder: The folder.

    Raises:
        StorageError: It cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(describe_write_error(folder, error)) from error


def empty_folder(folder: Path) -> None:
    """Remove what is in a folder. The folder stays, as it may be a link to another disk.

    Args:
        folder: The folder, which need not exist.

    Raises:
        StorageError: A file or folder cannot be removed.
    """
    try:
        for path in list(folder.glob("*")):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise StorageError(
            f"{folder} could not be emptied: {error.strerror or error}; remove it, or choose another output"
        ) from error


def sweep(output: Path) -> None:
    """Remove the temporary files of an output, and those in a folder of that name.

    Args:
        output: A file or a folder that no other process writes, as the caller holds its lock.
    """
    _remove(_find_beside(output))
    _remove(_find_temporary(output))


def sweep_abandoned(folder: Path) -> None:
    """Remove the temporary files in a folder whose processes are gone from this machine.

    Args:
        folder: A folder that other processes may be writing to.
    """
    _remove(path for path in _find_temporary(folder) if _is_abandoned(path))


def describe_write_error(path: Path, error: OSError, size: int | None = None) -> str:
    """Return the message of the `StorageError` for a file that could not be written.

    Args:
        path: The file, or the temporary one that is written for it.
        error: The reason.
        size: Size of the file in bytes.

    Returns:
        The message, which names the file itself, with the free space if the disk is full.
    """
    path = Path(*(_parse(Path(part))["name"] or part for part in path.parts))
    needs = f" (it needs {size / 1e6:.1f} MB)" if size else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        folder = next(parent for parent in (path.parent, *path.parents) if parent.exists())
        free = shutil.disk_usage(folder).free / 1e6
        return (
            f"{path}{needs} could not be written: the disk is full, {free:.1f} MB are free; "
            "free some space and run the same command again, earlier files are kept"
        )
    return f"{path}{needs} could not be written: {error.strerror or error}; choose another path"


def _sync_folder(folder: Path) -> None:
    """Have the disk know the names in a folder, where the system can open one."""
    if os.name == "nt":
        return
    with suppress(OSError):  # some network file systems have no such thing
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _parse(path: Path) -> dict[str, str]:
    """Return the parts of a temporary name; empty texts for another name."""
    found = _TEMPORARY.fullmatch(path.name)
    return found.groupdict() if found else dict.fromkeys(_TEMPORARY.groupindex, "")


def _find_beside(path: Path) -> Iterator[Path]:
    """Return the temporary files of a file."""
    found = path.parent.glob(f".{glob.escape(path.name)}.*.part")
    return (other for other in found if _parse(other)["name"] == path.name)


def _find_temporary(folder: Path) -> Iterator[Path]:
    for current, folders, names in os.walk(folder):  # which passes over what another process removes meanwhile
        yield from (Path(current) / name for name in (*folders, *names) if _TEMPORARY.fullmatch(name))


def _is_abandoned(path: Path) -> bool:
    parts = _parse(path)
    if parts["host"] != host_digest() or is_alive(int(parts["process"])):
        return False
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_AFTER
    except OSError:  # another process has removed it
        return False


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):  # another process has removed it, or the folder cannot be written
                path.unlink()
