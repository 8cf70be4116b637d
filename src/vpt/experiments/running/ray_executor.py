"""Workers on a Ray cluster: a run is a Ray task, and a task whose node is lost is done again elsewhere.

Only the process that calls `work` writes to the folder, so that nodes need vpt, the data and the weights at the same
paths, but not the folder; that process scores ensembles itself. Where nodes see the folder (a shared file system), a
run that is moved goes on from its checkpoint.
"""

import hashlib
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vpt.core.io import write_atomic
from vpt.core.ray_cluster import NodeWatch, connect_cluster
from vpt.core.text import one_line
from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.run_lock import HEARTBEAT_INTERVAL, BatchLock, heartbeat
from vpt.experiments.running.runner import ProgressReporter
from vpt.experiments.running.worker import POLL_INTERVAL, execute_runs
from vpt.experiments.selection import run_batches
from vpt.experiments.store import Record, Store


@dataclass(frozen=True)
class RayExecutor:
    """Runs as tasks of a Ray cluster.

    Attributes:
        address: Address of a cluster, such as "ray://host:10001"; None takes the cluster of this machine, or starts one
            on it.
        cpus: CPU cores of a run.
        gpus: GPUs of a run; may be a fraction.
        retries: Number of retries after the loss of a node.
        verbose: True shows the log lines of Ray.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 3
    verbose: bool = False

    def execute(self, experiment: Experiment, store: Store, reporter: ProgressReporter) -> None:
        """Do runs until none is left that can be done.

        Args:
            experiment: The experiment.
            store: Folder of the experiment.
            reporter: Reports the runs.

        Raises:
            VptError: Ray is not installed, or no cluster responds.
        """
        with connect_cluster(self.address, lambda text: reporter.callback.on_note(text), verbose=self.verbose) as ray:
            if missing := self.describe_missing_node(ray):
                reporter.callback.on_note(missing)
            _ClusterRuns(self, ray, experiment, store, reporter).run_all()

    def describe_missing_node(self, ray: Any) -> str:
        """Return a note if no node has what a run asks for, so that the runs wait.

        Args:
            ray: The module `ray`.

        Returns:
            The note; empty where a node has it.
        """
        requested = {"CPU": self.cpus, "GPU": self.gpus}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0.0) >= amount for name, amount in requested.items()) for node in nodes):
            return ""
        asked = " and ".join(f"{amount:g} {name}" for name, amount in requested.items() if amount)
        most = ", ".join(f"{max((node.get(name, 0.0) for node in nodes), default=0):g} {name}" for name in requested)
        return f"a run asks for {asked}, and no node of the cluster has that (at most {most}); runs wait for one"

    def max_parallel_runs(self, ray: Any) -> int:
        """Return the number of runs that the cluster can do at the same time.

        Args:
            ray: The module `ray`.

        Returns:
            The number of runs that the cluster can do at the same time.
        """
        resources = ray.cluster_resources()
        requested = {"CPU": self.cpus, "GPU": self.gpus}
        room = [int(resources.get(name, 0.0) / amount) for name, amount in requested.items() if amount]
        return max(1, min(room, default=1))


class _ClusterRuns:
    """The runs that were submitted to the cluster, and their locks."""

    def __init__(
        self, executor: RayExecutor, ray: Any, experiment: Experiment, store: Store, reporter: ProgressReporter
    ) -> None:
        self.executor, self.ray, self.experiment, self.store, self.reporter = executor, ray, experiment, store, reporter
        resources = {"num_cpus": executor.cpus, "num_gpus": executor.gpus, "max_retries": executor.retries}
        self.task = ray.remote(**resources)(_run_remotely)
        self.experiment_ref = ray.put(experiment)
        self.pending: dict[Any, tuple[tuple[Run, ...], BatchLock]] = {}
        self.last_refresh = time.monotonic()
        self.nodes = NodeWatch(ray)

    def run_all(self) -> None:
        """Submit runs and collect their records until none is left."""
        try:
            while self._submit() or run_batches(self.experiment, self.store.records()):
                finished: list[Any] = []
                if self.pending:
                    finished, _ = self.ray.wait(list(self.pending), timeout=POLL_INTERVAL)
                else:
                    time.sleep(POLL_INTERVAL)  # other runners hold the last ones
                for task in finished:
                    self._collect(task)
                self._refresh_locks()
                self.nodes.report_lost("runs", self.reporter.callback.on_note)
                self.reporter.report(self.executor.max_parallel_runs(self.ray))
        finally:
            for task, (_, lock) in self.pending.items():
                self.ray.cancel(task, force=True)
                lock.release()

    def _submit(self) -> bool:
        """Submit twice as many runs as fit, so that no node waits; return whether any is pending."""
        room = 2 * self.executor.max_parallel_runs(self.ray) - len(self.pending)
        held = {run.id for runs, _ in self.pending.values() for run in runs}
        for runs in run_batches(self.experiment, self.store.records()):
            if room <= 0:
                break
            lock = None if any(run.id in held for run in runs) else self.store.claim(runs)
            if lock is None:
                continue
            if runs[0].members:
                self._score_here(runs, lock)
                continue
            arguments = (self.experiment_ref, runs, lock, self.store.folder, max(1, int(self.executor.cpus)))
            self.pending[self.task.options(name=runs[0].label).remote(*arguments)] = (runs, lock)
            room -= 1
        return bool(self.pending)

    def _score_here(self, runs: Sequence[Run], lock: BatchLock) -> None:
        """Score an ensemble in this process: its members' tuned files are in the folder, which nodes may not see."""
        try:
            with ExitStack() as stack:
                for held in (lock, *(pending for _, pending in self.pending.values())):
                    stack.enter_context(heartbeat(held, lambda: None))  # `_refresh_locks` finds locks that were lost
                records = execute_runs(self.experiment, runs, self.store)
            for record in records:
                self.store.add(record)
        finally:
            lock.release()

    def _collect(self, task: Any) -> None:
        runs, lock = self.pending.pop(task)
        try:
            records, tuned = self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            left = [run for run in runs if not self.store.has_record(run.id)]  # a record stays as it is
            records = [Record.of_error(run, f"Ray gave no result: {one_line(error)}") for run in left[:1]]
            tuned = {}
        for record in records:
            if record.id in tuned:
                write_atomic(self.store.tuned_path(record.id), tuned[record.id])
            self.store.add(record)
        lock.release()

    def _refresh_locks(self) -> None:
        """Refresh all locks; cancel a run that another process has taken over."""
        if time.monotonic() - self.last_refresh < HEARTBEAT_INTERVAL:
            return
        self.last_refresh = time.monotonic()
        for task, (runs, lock) in list(self.pending.items()):
            if not lock.refresh():
                self.reporter.callback.on_note(f"{runs[0].label}: another runner has taken it over")
                self.ray.cancel(task, force=True)
                del self.pending[task]


def _run_remotely(
    experiment: Experiment, runs: Sequence[Run], lock: BatchLock, folder: Path, threads: int
) -> tuple[list[Record], dict[str, bytes]]:
    """Do runs in a Ray task; return records, and tuned files by run where this node does not see the folder."""
    torch.set_num_threads(threads)
    store = Store(folder)
    if _sees_lock(lock):
        return execute_runs(experiment, runs, store), {}
    local_store = Store(Path(tempfile.gettempdir()) / f"vpt-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}")
    records = execute_runs(experiment, runs, local_store)
    paths = {run.id: local_store.tuned_path(run.id) for run in runs}
    tuned = {run_id: path.read_bytes() for run_id, path in paths.items() if path.exists()}
    local_store.remove_records(paths)
    return records, tuned


def _sees_lock(lock: BatchLock) -> bool:
    """Return whether this machine sees the folder of the locks, and not another one of the same name."""
    try:
        return all(each.path.read_text() == each.token for each in lock.locks)
    except OSError:
        return False
