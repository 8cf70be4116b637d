"""Dynamic batching: requests of many threads, answered together by one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")


class Batcher(Generic[RequestT, ResultT]):
    """Calls `process` from a thread of its own, with as many requests as have come in.

    process: requests -> (position, answer or error) of each, in any order; each is told as soon as it comes. Where it
        raises, the requests without an answer are tried one by one, so that a bad one spoils no other.
    batch_size: requests at once at most. max_delay: seconds that a request waits for company at most.
    """

    def __init__(
        self,
        process: Callable[[Sequence[RequestT]], Iterable[tuple[int, ResultT | Exception]]],
        *,
        batch_size: int = 32,
        max_delay: float = 0.005,
    ) -> None:
        self._process = process
        self._batch_size = batch_size
        self._max_delay = max_delay
        self._queue: queue.Queue[tuple[RequestT, Future[ResultT]] | None] = queue.Queue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, request: RequestT) -> Future[ResultT]:
        """The answer to come."""
        if self._closed:
            raise RuntimeError("the batcher is closed")
        future: Future[ResultT] = Future()
        self._queue.put((request, future))
        return future

    def close(self) -> None:
        """Answer what is waiting, then stop."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            batch, deadline = [first], time.monotonic() + self._max_delay
            while batch[-1] is not None and len(batch) < self._batch_size:
                try:
                    batch.append(self._queue.get(timeout=max(0.0, deadline - time.monotonic())))
                except queue.Empty:
                    break
            self._process_batch([item for item in batch if item is not None and item[1].set_running_or_notify_cancel()])
            if batch[-1] is None:
                return

    def _process_batch(self, batch: list[tuple[RequestT, Future[ResultT]]]) -> None:
        if not batch:
            return
        try:
            for index, result in self._process([request for request, _ in batch]):
                if isinstance(result, Exception):
                    batch[index][1].set_exception(result)
                else:
                    batch[index][1].set_result(result)
            if not all(future.done() for _, future in batch):
                raise RuntimeError("there was no answer")
        except Exception as error:  # whatever it is, it belongs to who asked
            unanswered = [item for item in batch if not item[1].done()]
            if len(batch) == 1:
                for _, future in unanswered:
                    future.set_exception(error)
                return
            for item in unanswered:
                self._process_batch([item])
