"""Requests of many threads, answered together: one thread works, and takes along whatever has come in meanwhile."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from vpt.errors import VptError

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class Busy(VptError):
    """More requests wait than may; ask again later."""


class Together(Generic[Asked, Answered]):
    """Calls `answer` from one thread of its own, with as many requests as have come in, up to `batch_size`.

    wait: seconds that a request waits for company at most. room: requests that may wait; beyond, `submit` raises Busy.
    Where a batch fails, its requests are answered one by one, so that a bad one spoils no other.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Sequence[Answered]],
        *,
        batch_size: int = 32,
        wait: float = 0.005,
        room: int = 256,
    ) -> None:
        self._answer = answer
        self._batch_size = batch_size
        self._wait = wait
        self._waiting: queue.Queue[tuple[Asked, Future[Answered]] | None] = queue.Queue(room)
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    def submit(self, request: Asked) -> Future[Answered]:
        """The answer to come. Raises Busy where no more may wait."""
        future: Future[Answered] = Future()
        try:
            self._waiting.put_nowait((request, future))
        except queue.Full:
            raise Busy(f"{self._waiting.maxsize} requests are waiting already; ask again in a moment") from None
        return future

    def close(self) -> None:
        """Answer what is waiting, then stop."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            first = self._waiting.get()
            batch, until = [first], time.monotonic() + self._wait
            while batch[-1] is not None and len(batch) < self._batch_size:
                try:
                    batch.append(self._waiting.get(timeout=max(0.0, until - time.monotonic())))
                except queue.Empty:
                    break
            wanted = [item for item in batch if item is not None and item[1].set_running_or_notify_cancel()]
            if wanted:
                self._settle(wanted)
            if batch[-1] is None:
                return

    def _settle(self, batch: list[tuple[Asked, Future[Answered]]]) -> None:
        try:
            answers = self._answer([request for request, _ in batch])
        except Exception as error:  # whatever it is, it belongs to who asked
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for one in batch:
                self._settle([one])
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_result(answer)
