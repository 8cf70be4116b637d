"""Atomic file writes: a crash, a kill or a full disk never leaves a partial file."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from vpt.errors import StorageError


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file in one step.

    Args:
        path: The file to write. Missing parent folders are created.
        content: The new content.
    """
    write_atomic_with(path, lambda tmp: _write_and_sync(tmp, content), size=len(content))


def write_atomic_with(path: Path, write: Callable[[Path], object], size: int | None = None) -> None:
    """Let a function write a temporary file, then move it to its final path in one step.

    Args:
        path: The file to write. Missing parent folders are created.
        write: Called with the path of the temporary file, which is in the same folder.
        size: Expected size in bytes, for the error message of a full disk.

    Raises:
        StorageError: The disk is full, the folder cannot be written, or `path` is a device. `path` is unchanged.
    """
    tmp: Path | None = None
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise StorageError(f"{path} is not a regular file; choose another path")
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
        raise StorageError(describe_write_error(path, error, size)) from error
    finally:
        if tmp is not None:
            tmp.unlink(missing_ok=True)


def describe_write_error(path: Path, error: OSError, size: int | None = None) -> str:
    """Return the message of the `StorageError` for a file that could not be written.

    Args:
        path: The file.
        error: The reason.
        size: Size of the file in bytes.

    Returns:
        The message, with the free space if the disk is full.
    """
    needs = f" (it needs {size / 1e6:.1f} MB)" if size else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        folder = next(parent for parent in (path.parent, *path.parents) if parent.exists())
        free = shutil.disk_usage(folder).free / 1e6
        return (
            f"{path}{needs} could not be written: the disk is full, {free:.1f} MB are free; "
            "free some space and run the same command again, earlier files are kept"
        )
    return f"{path}{needs} could not be written: {error.strerror or error}; choose another path"


def _write_and_sync(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
