"""Dynamic batching: requests of many threads, answered together by one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


class Batcher(Generic[Asked, Answered]):
    """Calls `answers` from a thread of its own, with as many requests as have come in.

    answers: requests -> (position, answer or error) of each, in any order; each is told as soon as it comes. Where it
        raises, the requests without an answer are tried one by one, so that a bad one spoils no other.
    batch_size: requests at once at most. wait: seconds that a request waits for company at most.
    """

    def __init__(
        self,
        answers: Callable[[Sequence[Asked]], Iterable[tuple[int, Answered | Exception]]],
        *,
        batch_size: int = 32,
        wait: float = 0.005,
    ) -> None:
        self._answers = answers
        self._batch_size = batch_size
        self._wait = wait
        self._waiting: queue.Queue[tuple[Asked, Future[Answered]] | None] = queue.Queue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, request: Asked) -> Future[Answered]:
        """The answer to come."""
        if self._closed:
            raise RuntimeError("the batcher is closed")
        future: Future[Answered] = Future()
        self._waiting.put((request, future))
        return future

    def close(self) -> None:
        """Answer what is waiting, then stop."""
        self._closed = True
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
            self._settle([item for item in batch if item is not None and item[1].set_running_or_notify_cancel()])
            if batch[-1] is None:
                return

    def _settle(self, batch: list[tuple[Asked, Future[Answered]]]) -> None:
        if not batch:
            return
        try:
            for place, answer in self._answers([request for request, _ in batch]):
                if isinstance(answer, Exception):
                    batch[place][1].set_exception(answer)
                else:
                    batch[place][1].set_result(answer)
            if not all(future.done() for _, future in batch):
                raise RuntimeError("there was no answer")
        except Exception as error:  # whatever it is, it belongs to who asked
            left = [item for item in batch if not item[1].done()]
            if len(batch) == 1:
                for _, future in left:
                    future.set_exception(error)
                return
            for item in left:
                self._settle([item])
