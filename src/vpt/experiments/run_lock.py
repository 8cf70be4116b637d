"""Lock files with a heartbeat: two processes never do one run, and no run is lost.

A lock on run ID is the file ID.N, made in one step that only one process can win. The highest N holds. A lock whose
owner is dead is not removed but outbid by ID.N+1, again in one step: removing it could hit another's new lock.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vpt.core.io import describe_write_error, make_folder
from vpt.core.process import is_alive
from vpt.errors import StorageError

HEARTBEAT_INTERVAL = 1.0  # seconds between two signs of life
DEAD_TIMEOUT = 3.0  # without one for so long, a lock is void if its process is gone from this machine
STALE_TIMEOUT = 120.0  # and after so long whatever is known of its process


@dataclass(frozen=True)
class RunLock:
    """A lock on a run that this process holds.

    Attributes:
        folder: Folder of the locks.
        run_id: Id of the run.
        generation: Number of the lock among those on the run.
        token: Text that identifies the owner; no two locks have the same.
    """

    folder: Path
    run_id: str
    generation: int
    token: str

    @property
    def path(self) -> Path:
        """File of the lock."""
        return self.folder / f"{self.run_id}.{self.generation}"

    def refresh(self) -> bool:
        """Update the time of the lock; return False where another process has taken over the run."""
        try:
            os.utime(self.path)
        except FileNotFoundError:
            return False
        except OSError:  # a network folder that is away for a moment: the next sign of life may come through
            return True
        return max(_generations(self.folder, self.run_id), default=-1) == self.generation

    def release(self) -> None:
        """Release the lock. Earlier locks are removed first, so that this one holds to the end."""
        for generation in range(self.generation + 1):
            (self.folder / f"{self.run_id}.{generation}").unlink(missing_ok=True)


@dataclass(frozen=True)
class BatchLock:
    """The locks on all runs of a batch, which this process holds.

    Attributes:
        locks: A lock on each run.
    """

    locks: tuple[RunLock, ...]

    def refresh(self) -> bool:
        """Update the time of each lock; return False where another process has taken over a run."""
        return all([lock.refresh() for lock in self.locks])  # a list: each lock is refreshed

    def release(self) -> None:
        """Release each lock."""
        for lock in self.locks:
            lock.release()


class RunLocks:
    """The locks in a folder."""

    def __init__(self, folder: Path) -> None:
        """Open a folder, which need not exist yet.

        Args:
            folder: The folder.
        """
        self.folder = folder

    def acquire(self, run_id: str) -> RunLock | None:
        """Lock a run that no other process holds.

        Args:
            run_id: Id of the run.

        Returns:
            The lock; None where another process holds the run.

        Raises:
            StorageError: The lock cannot be written.
        """
        make_folder(self.folder)
        highest = max(_generations(self.folder, run_id), default=-1)
        previous = self.folder / f"{run_id}.{highest}"
        expired = None if highest < 0 else _expired_token(previous)
        if highest >= 0 and expired is None:
            return None
        lock = RunLock(self.folder, run_id, highest + 1, f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}")
        if not _create(lock):
            return None
        if expired is not None and _read_token(previous) != expired:  # it was ended meanwhile, and perhaps locked anew
            lock.path.unlink(missing_ok=True)
            return None
        return lock

    def acquire_all(self, run_ids: Iterable[str]) -> BatchLock | None:
        """Lock runs if no other process holds any of them.

        Args:
            run_ids: Ids of the runs.

        Returns:
            The locks; None where another process holds a run.

        Raises:
            StorageError: A lock cannot be written.
        """
        locks: list[RunLock] = []
        try:
            for run_id in sorted(run_ids):  # in one order: of two processes, the one with the first common run gets all
                lock = self.acquire(run_id)
                if lock is None:
                    BatchLock(tuple(locks)).release()
                    return None
                locks.append(lock)
        except StorageError:
            BatchLock(tuple(locks)).release()
            raise
        return BatchLock(tuple(locks))

    def held(self) -> dict[str, int]:
        """Return the process id of each run that is locked; 0 for a lock of another machine."""
        found: dict[str, int] = {}
        lock_files = [path for path in self.folder.glob("*.*") if path.suffix[1:].isdigit()]  # others are strays
        for path in sorted(lock_files, key=lambda path: int(path.suffix[1:])):
            host, process = _parse_owner(_read_token(path))
            found[path.stem] = process if host == socket.gethostname() else 0
        return found

    def live(self) -> set[str]:
        """Return the ids of the runs whose lock has not expired; earlier locks on a run do not count."""
        highest = {run_id: max(_generations(self.folder, run_id), default=-1) for run_id in self.held()}
        return {run_id for run_id, last in highest.items() if _expired_token(self.folder / f"{run_id}.{last}") is None}

    def release_process(self, process: int) -> list[str]:
        """Release the locks of a process of this machine that has ended.

        Args:
            process: Process id.

        Returns:
            The ids of the runs that the process held.
        """
        runs = [run_id for run_id, owner in self.held().items() if owner == process]
        for run_id in runs:
            self.force_release(run_id)
        return runs

    def force_release(self, run_id: str) -> None:
        """Remove all locks on a run.

        Args:
            run_id: Id of the run.
        """
        for generation in sorted(_generations(self.folder, run_id)):
            (self.folder / f"{run_id}.{generation}").unlink(missing_ok=True)


@contextmanager
def heartbeat(lock: BatchLock, on_lost: Callable[[], None]) -> Iterator[None]:
    """Refresh the locks of a batch from a thread during a `with` block.

    Args:
        lock: The locks.
        on_lost: Function to call in the thread when another process has taken over a run.
    """
    stopped = threading.Event()

    def refresh() -> None:
        while not stopped.wait(HEARTBEAT_INTERVAL):
            if not lock.refresh() and not stopped.is_set():
                on_lost()
                return

    thread = threading.Thread(target=refresh, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _create(lock: RunLock) -> bool:
    """Write the file of a lock; return False where another process has just done so."""
    created = False
    try:
        with lock.path.open("x") as file:
            created = True
            file.write(lock.token)
    except FileExistsError:
        return False
    except OSError as error:
        if created:  # a lock without its owner would hold until it is stale
            with suppress(OSError):
                lock.path.unlink(missing_ok=True)
        raise StorageError(describe_write_error(lock.path, error)) from error
    return True


def _expired_token(path: Path) -> str | None:
    """Return the token of a lock that has expired; None where it holds or does not exist."""
    try:
        silent_for = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    token = _read_token(path)
    host, process = _parse_owner(token)
    # A lock without an owner is of a process that was killed before it wrote its name.
    owner_is_dead = token == "" or (host == socket.gethostname() and not is_alive(process))
    return token if silent_for > (DEAD_TIMEOUT if owner_is_dead else STALE_TIMEOUT) else None


def _generations(folder: Path, run_id: str) -> list[int]:
    return [int(path.suffix[1:]) for path in folder.glob(f"{run_id}.*") if path.suffix[1:].isdigit()]


def _read_token(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _parse_owner(token: str | None) -> tuple[str, int]:
    host, process, *_ = [*(token or "").split(), "", "0"]
    return host, int(process) if process.isdigit() else 0
