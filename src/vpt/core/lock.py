"""Locks on outputs: two processes never write one file or folder, and a killed one holds no lock."""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from vpt.core.io import describe_write_error, sweep
from vpt.errors import StorageError

_PATIENCE = 0.1
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of file systems that have none


@contextmanager
def lock_output(output: Path, *others: Path, patience: float = _PATIENCE) -> Iterator[None]:
    """Hold the lock of an output during a `with` block, and remove the temporary files that killed writers left.

    The lock is a hidden file beside the output, `.NAME.lock`. The system frees it when the process ends, in whatever
    way. On a file system without locks there is none.

    Args:
        output: The file or folder, which need not exist yet.
        *others: Further outputs that are written under this lock alone.
        patience: Seconds to wait for another process. Default: 0.1, in which one that ends removes its lock.

    Raises:
        StorageError: Another process holds the lock, or the folder cannot be written. Nothing has been read.
    """
    target = Path(os.path.realpath(output))  # `resolve` fails on links in a circle
    lock_file = target.parent / f".{target.name}.lock"
    lock = FileLock(lock_file, timeout=patience, on_acquired=_write_holder)
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise StorageError(
            f"{output} is being written by {_read_holder(lock_file)}; wait until that ends, or choose another output"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise StorageError(describe_write_error(output, error)) from error
    try:
        for path in (output, *others) if lock.is_locked else ():
            sweep(path)
        yield
    finally:
        if lock.is_locked:
            if os.name != "nt":  # while it is locked, as it would be another's afterwards; Windows removes it then
                with suppress(OSError):
                    lock_file.unlink()
            lock.release()


def _write_holder(handle: int) -> None:
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    with suppress(OSError):  # on a full disk the lock holds all the same
        os.ftruncate(handle, 0)  # a killed process has left its own
        os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode())


def _read_holder(path: Path) -> str:
    """Return the holder of a lock in words."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # it is just beginning, or Windows lets nobody read
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    return "another process"
