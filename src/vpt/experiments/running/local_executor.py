"""Executors on this machine: this process, or worker processes."""

import _thread
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
from vpt.experiments.experiment import Experiment
from vpt.experiments.running.runner import ProgressReporter
from vpt.experiments.running.worker import POLL_INTERVAL, run_worker
from vpt.experiments.selection import resolved_runs
from vpt.experiments.store import Record, Store

_LOCK_LOST_EXIT_CODE = 75  # exit code of a worker whose run was taken over; the system's own name for it is "try again"


@dataclass(frozen=True)
class InlineExecutor:
    """One run after the other in this process, with the events of their training."""

    def execute(self, experiment: Experiment, store: Store, reporter: ProgressReporter) -> None:
        """Do runs until none is left that can be done.

        Args:
            experiment: The experiment.
            store: Folder of the experiment.
            reporter: Reports the runs.
        """
        run_worker(experiment, store, on_lost=_thread.interrupt_main, reporter=reporter)


@dataclass(frozen=True)
class LocalExecutor:
    """Worker processes that do runs at the same time; several GPUs are assigned in turn.

    Attributes:
        workers: Number of processes.
    """

    workers: int = 1

    def execute(self, experiment: Experiment, store: Store, reporter: ProgressReporter) -> None:
        """Do runs until none is left that can be done.

        Args:
            experiment: The experiment.
            store: Folder of the experiment.
            reporter: Reports the runs.

        Raises:
            VptError: A worker ended for a reason that is not its run.
        """
        reporter.report(self.workers)
        processes = [_start_worker(experiment, store, index, self.workers) for index in range(self.workers)]
        try:
            while True:
                time.sleep(POLL_INTERVAL)
                reporter.report(self.workers)
                for index, process in enumerate(processes):
                    if process.exitcode:
                        _handle_dead_worker(process, experiment, store, reporter)
                        processes[index] = _start_worker(experiment, store, index, self.workers)
                if not any(process.is_alive() for process in processes):
                    break
        finally:
            for process in processes:
                process.terminate()  # a record is written in one step, so nothing is left half done
            for process in processes:
                process.join()
                store.locks.release_process(process.pid or 0)


def _start_worker(experiment: Experiment, store: Store, index: int, workers: int) -> BaseProcess:
    arguments = (experiment, store.folder, index, max(1, torch.get_num_threads() // workers))
    process = multiprocessing.get_context("spawn").Process(None, _worker_main, f"worker {index + 1}", arguments)
    with _ignore_interrupts():
        process.start()
    return process


def _worker_main(experiment: Experiment, folder: Path, index: int, threads: int) -> None:
    """Do runs in a worker process."""
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        os.environ["LOCAL_RANK"] = str(index % torch.cuda.device_count())
    threading.Thread(target=_exit_with_parent, name="parent", daemon=True).start()
    try:
        run_worker(experiment, Store(folder), on_lost=lambda: os._exit(_LOCK_LOST_EXIT_CODE))
    except VptError as error:  # such as a full disk; a run that goes wrong is a record and does not end here
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def _exit_with_parent() -> None:
    """End this process when its parent was killed; the next runner would wait for it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _handle_dead_worker(process: BaseProcess, experiment: Experiment, store: Store, reporter: ProgressReporter) -> None:
    """Report the end of a worker, and record it for its run, which would end the next worker too.

    Of a batch, the first run gets the record: the others are batches of their own then.
    """
    if process.exitcode == _LOCK_LOST_EXIT_CODE:
        reporter.callback.on_note(
            f"{process.name} was silent for so long that its run was taken over; it begins another"
        )
        return
    code = process.exitcode or 0
    reason = f"signal {signal.Signals(-code).name}, perhaps for want of memory" if code < 0 else f"exit code {code}"
    run_ids = [run_id for run_id, owner in store.locks.held().items() if owner == process.pid]
    if not run_ids:
        raise VptError(f"{process.name} ended with {reason}, and not over a run; the text above says more")
    runs = resolved_runs(experiment, store.records())
    first = next((run for run_id, run in runs.items() if run_id in run_ids and not store.has_record(run_id)), None)
    if first is not None:
        text = f"its worker ended with {reason}"
        reporter.callback.on_note(f"{first.label}: {text}")
        store.write(Record.of_error(first, text))
    for run_id in run_ids:
        store.locks.force_release(run_id)  # only now: it would end the next worker, too


@contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Let processes that are started here ignore Ctrl-C: the runner ends them and releases their locks."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
