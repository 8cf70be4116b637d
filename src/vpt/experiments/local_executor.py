"""Workers in processes of their own on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from vpt.errors import VptError
from vpt.experiments.experiment import Plan
from vpt.experiments.runner import Board
from vpt.experiments.search import known
from vpt.experiments.store import Store
from vpt.experiments.worker import PAUSE, without_result, work

_LOST = 75  # exit code of a worker whose run was taken over; the system's own name for it is "try again"


@dataclass(frozen=True)
class Processes:
    """So many workers at once; several GPUs are dealt out in turn."""

    workers: int = 1

    def work(self, plan: Plan, store: Store, board: Board) -> None:
        """Do runs until none is left that can be done."""
        board.tell(self.workers)
        processes = [_start(plan, store, index, self.workers) for index in range(self.workers)]
        try:
            while True:
                time.sleep(PAUSE)
                board.tell(self.workers)
                for index, process in enumerate(processes):
                    if process.exitcode:
                        _bury(process, plan, store, board)
                        processes[index] = _start(plan, store, index, self.workers)
                if not any(process.is_alive() for process in processes):
                    break
        finally:
            for process in processes:
                process.terminate()  # a record is written in one step, so nothing is left half done
            for process in processes:
                process.join()
                store.claims.release_of(process.pid or 0)


def _start(plan: Plan, store: Store, index: int, workers: int) -> BaseProcess:
    threads = max(1, torch.get_num_threads() // workers)
    process = multiprocessing.get_context("spawn").Process(
        target=_worker, args=(plan, store.folder, index, threads), name=f"worker {index + 1}"
    )
    with _deaf_to_interrupts():
        process.start()
    return process


def _worker(plan: Plan, folder: Path, index: int, threads: int) -> None:
    """The inside of a worker's process."""
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        os.environ["LOCAL_RANK"] = str(index % torch.cuda.device_count())
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        work(plan, Store(folder), lost=lambda: os._exit(_LOST))
    except VptError as error:  # such as a full disk; a run that goes wrong is a record and does not end here
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def _end_with_parent() -> None:
    """A runner that was killed cannot end its workers; the next one would wait for them."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _bury(process: BaseProcess, plan: Plan, store: Store, board: Board) -> None:
    """Say what a worker died of, and record it for the run it had, which would kill the next worker too."""
    if process.exitcode == _LOST:
        board.note(f"{process.name} was silent for so long that its run was taken over; it begins another")
        return
    code = process.exitcode or 0
    why = f"signal {signal.Signals(-code).name}, perhaps for want of memory" if code < 0 else f"exit code {code}"
    had = [run_id for run_id, owner in store.claims.held().items() if owner == process.pid]
    if not had:
        raise VptError(f"{process.name} ended with {why}, and not over a run; the text above says more")
    runs = known(plan, store.records())
    for run_id in had:
        if run_id in runs and not store.has(run_id):
            text = f"its worker ended with {why}"
            board.note(f"{runs[run_id].label}: {text}")
            store.write(without_result(runs[run_id], text))
        store.claims.end(run_id)  # only now: it would end the next worker, too


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started here ignore Ctrl-C: it is the runner that ends them, once it is sure of their claims."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
