"""Who does which run: lock files with a heartbeat, so that two processes never do one run, and none is lost.

A claim on run ID is the file ID.N, made in one step that only one process can win. The highest N holds. A claim whose
owner is dead is not removed but outbid by ID.N+1, again in one step: removing it could hit another's new claim.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BEAT = 1.0  # seconds between two signs of life
QUIET = 3.0  # without one for so long, a claim is void if its process is gone from this machine
STALE = 120.0  # and after so long whatever is known of its process


@dataclass(frozen=True)
class Claim:
    """A run that this process holds. text: who made it; no two claims have the same."""

    folder: Path
    run_id: str
    number: int
    text: str

    @property
    def path(self) -> Path:
        """Its file."""
        return self.folder / f"{self.run_id}.{self.number}"

    def beat(self) -> bool:
        """Give a sign of life. False when another process has taken over."""
        try:
            os.utime(self.path)
        except FileNotFoundError:
            return False
        except OSError:  # a network folder that is away for a moment: the next sign of life may come through
            return True
        return max(_numbers(self.folder, self.run_id), default=-1) == self.number

    def release(self) -> None:
        """Give the run back, or end it: the claims before it go first, so that it holds to the end."""
        for number in range(self.number + 1):
            (self.folder / f"{self.run_id}.{number}").unlink(missing_ok=True)


class Claims:
    """All claims of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, run_id: str) -> Claim | None:
        """Claim a run; None where another process holds it, or was faster."""
        self.folder.mkdir(parents=True, exist_ok=True)
        highest = max(_numbers(self.folder, run_id), default=-1)
        before = self.folder / f"{run_id}.{highest}"
        seen = None if highest < 0 else _void(before)
        if highest >= 0 and seen is None:
            return None
        claim = Claim(self.folder, run_id, highest + 1, f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}")
        try:
            with claim.path.open("x") as file:
                file.write(claim.text)
        except FileExistsError:
            return None
        if seen is not None and _text(before) != seen:  # it was ended meanwhile, and perhaps claimed anew
            claim.path.unlink(missing_ok=True)
            return None
        return claim

    def held(self) -> dict[str, int]:
        """Run -> process id, for the claims of this machine; 0 for those of another."""
        found: dict[str, int] = {}
        numbered = [path for path in self.folder.glob("*.*") if path.suffix[1:].isdigit()]  # others are strays
        for path in sorted(numbered, key=lambda path: int(path.suffix[1:])):
            host, process = _owner(_text(path))
            found[path.stem] = process if host == socket.gethostname() else 0
        return found

    def release_of(self, process: int) -> list[str]:
        """Give back what a process of this machine held that has ended; the runs."""
        runs = [run_id for run_id, owner in self.held().items() if owner == process]
        for run_id in runs:
            self.end(run_id)
        return runs

    def end(self, run_id: str) -> None:
        """Remove all claims on a run that is over."""
        for number in sorted(_numbers(self.folder, run_id)):
            (self.folder / f"{run_id}.{number}").unlink(missing_ok=True)


@contextmanager
def beating(claim: Claim, lost: Callable[[], None]) -> Iterator[None]:
    """Give signs of life from a thread; `lost` is called there when another process has taken over."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            if not claim.beat() and not ended.is_set():
                lost()
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _void(path: Path) -> str | None:
    """What stands in a claim that no longer holds; None where it does, or is gone."""
    try:
        quiet = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    text = _text(path)
    host, process = _owner(text)
    gone = host == socket.gethostname() and not _alive(process)
    return text if quiet > (QUIET if gone else STALE) else None


def _numbers(folder: Path, run_id: str) -> list[int]:
    return [int(path.suffix[1:]) for path in folder.glob(f"{run_id}.*") if path.suffix[1:].isdigit()]


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _owner(text: str | None) -> tuple[str, int]:
    host, process, *_ = [*(text or "").split(), "", "0"]
    return host, int(process) if process.isdigit() else 0


def _alive(process: int) -> bool:
    if os.name == "nt":  # where os.kill ends the process whatever the signal
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there, and another user's
        return True
    return True
