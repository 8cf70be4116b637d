"""Workers on a Ray cluster: a run is a Ray task, and a task whose node is lost is done again elsewhere.

Only the process that calls `work` writes to the folder, so that nodes need vpt, the data and the weights at the same
paths, but not the folder. Where they see it (a shared file system), a run that is moved goes on from its checkpoint.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vpt.core.io import write_atomic
from vpt.core.optional import need
from vpt.errors import VptError
from vpt.experiments.experiment import Plan, Run
from vpt.experiments.run_lock import BEAT, Claim
from vpt.experiments.runner import Board
from vpt.experiments.search import bundles
from vpt.experiments.store import Record, Store
from vpt.experiments.worker import PAUSE, execute, without_result


@dataclass(frozen=True)
class RayCluster:
    """address: as `ray.init` takes it, such as "ray://host:10001"; None is the cluster this machine is part of, or a
    new one on it alone. cpus, gpus: what a run asks for; parts of a GPU will do. retries: after the loss of a node.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 3

    def work(self, plan: Plan, store: Store, board: Board) -> None:
        """Do runs until none is left that can be done.

        Raises VptError without Ray, and where no cluster answers.
        """
        ray = need("ray", "ray", "work on a cluster")
        mine = not ray.is_initialized()
        if mine:
            self._connect(ray)
        try:
            _Sweep(self, ray, plan, store, board).finish()
        finally:
            if mine:
                ray.shutdown()

    def at_once(self, ray: Any) -> int:
        """How many runs the cluster has room for."""
        there = ray.cluster_resources()
        asked = {"CPU": self.cpus, "GPU": self.gpus}
        room = [int(there.get(name, 0.0) / amount) for name, amount in asked.items() if amount]
        return max(1, min(room, default=1))

    def _connect(self, ray: Any) -> None:
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, OSError, ValueError, RuntimeError) as error:
            raise VptError(f"no Ray cluster answers at {self.address or 'this machine'}: {error}") from error


class _Sweep:
    """The runs that are with the cluster, and their claims."""

    def __init__(self, place: RayCluster, ray: Any, plan: Plan, store: Store, board: Board) -> None:
        self.place, self.ray, self.plan, self.store, self.board = place, ray, plan, store, board
        self.task = ray.remote(num_cpus=place.cpus, num_gpus=place.gpus, max_retries=place.retries)(_do)
        self.sent_plan = ray.put(plan)
        self.pending: dict[Any, tuple[tuple[Run, ...], Claim]] = {}
        self.last_beat = time.monotonic()

    def finish(self) -> None:
        """Send and fetch until nothing is left."""
        try:
            while self._send() or bundles(self.plan, self.store.records()):
                ended: list[Any] = []
                if self.pending:
                    ended, _ = self.ray.wait(list(self.pending), timeout=PAUSE)
                else:
                    time.sleep(PAUSE)  # other runners hold the last ones
                for task in ended:
                    self._fetch(task)
                self._beat()
                self.board.tell(self.place.at_once(self.ray))
        finally:
            for task, (_, claim) in self.pending.items():
                self.ray.cancel(task, force=True)
                claim.release()

    def _send(self) -> bool:
        """Hand over what there is room for, and as much again, so that no node waits; whether anything is pending."""
        room = 2 * self.place.at_once(self.ray) - len(self.pending)
        held = {runs[0].id for runs, _ in self.pending.values()}
        for runs in bundles(self.plan, self.store.records()):
            if room <= 0:
                break
            claim = None if runs[0].id in held else self.store.claims.take(runs[0].id)
            if claim is None:
                continue
            if all(self.store.has(run.id) for run in runs):  # ended between our look at the folder and our claim
                claim.release()
                continue
            threads = max(1, int(self.place.cpus))
            given = (self.sent_plan, runs, claim, self.store.folder, threads)
            self.pending[self.task.options(name=runs[0].label).remote(*given)] = (runs, claim)
            room -= 1
        return bool(self.pending)

    def _fetch(self, task: Any) -> None:
        runs, claim = self.pending.pop(task)
        try:
            records, tuned = self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            said = " ".join(str(error).split())
            records, tuned = [without_result(runs[0], f"Ray gave no result: {said}")], {}
        for record in records:
            if record.id in tuned:
                self.store.tuned(record.id).parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self.store.tuned(record.id), tuned[record.id])
            if not self.store.has(record.id):
                self.store.write(record)
        claim.release()

    def _beat(self) -> None:
        """Give signs of life for all claims; what was taken over meanwhile is left to who took it."""
        if time.monotonic() - self.last_beat < BEAT:
            return
        self.last_beat = time.monotonic()
        for task, (runs, claim) in list(self.pending.items()):
            if not claim.beat():
                self.board.note(f"{runs[0].label}: another runner has taken it over")
                self.ray.cancel(task, force=True)
                del self.pending[task]


def _do(
    plan: Plan, runs: Sequence[Run], claim: Claim, folder: Path, threads: int
) -> tuple[list[Record], dict[str, bytes]]:
    """The inside of a Ray task: records, and tuned files by run where the folder is not to be seen from here."""
    torch.set_num_threads(threads)
    store = Store(folder)
    if _sees(claim):
        return execute(plan, runs, store), {}
    here = Store(Path(tempfile.gettempdir()) / f"vpt-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}")
    records = execute(plan, runs, here)
    tuned = {run.id: here.tuned(run.id).read_bytes() for run in runs if here.tuned(run.id).exists()}
    for run in runs:
        here.tuned(run.id).unlink(missing_ok=True)
        here.clear(run.id)
    return records, tuned


def _sees(claim: Claim) -> bool:
    """Whether this machine sees the folder of a claim, and not another one of the same name."""
    try:
        return claim.path.read_text() == claim.text
    except OSError:
        return False
