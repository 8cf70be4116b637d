"""Writing files so that a crash, a kill or a full disk never leaves half a file behind."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from vpt.errors import StorageError


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path`: the old file or the new one is there at any moment, never a part of one."""
    write_atomic_with(path, lambda tmp: _write_and_sync(tmp, content), size=len(content))


def write_atomic_with(path: Path, write: Callable[[Path], None], size: int | None = None) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    size: expected bytes, only for the message when the disk is full.
    Raises StorageError when the disk is full, the folder cannot be written, or `path` is a device; `path` is then as it
    was.
    """
    tmp: Path | None = None
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise StorageError(f"{path} is no ordinary file but a device or the like; choose another place")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        tmp = Path(name)
        write(tmp)
        tmp.chmod(0o666 & ~_umask())  # mkstemp makes files private; these are ordinary ones
        tmp.replace(path)
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(path, error, size) from error
    finally:
        if tmp is not None:
            tmp.unlink(missing_ok=True)


def storage_error(path: Path, error: OSError, size: int | None = None) -> StorageError:
    """The message for a file that could not be written."""
    needs = f" (it needs {size / 1e6:.1f} MB)" if size else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        folder = next(parent for parent in (path.parent, *path.parents) if parent.exists())
        free = shutil.disk_usage(folder).free / 1e6
        return StorageError(
            f"the disk is full: {path}{needs} could not be written, {free:.1f} MB are free; "
            "free some space and give the same command again, nothing written before is lost"
        )
    return StorageError(f"{path}{needs} could not be written: {error.strerror or error}; choose another place")


def _write_and_sync(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
