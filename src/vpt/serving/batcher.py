"""Dynamic batching: one thread processes the requests of many threads together."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")


class Batcher(Generic[RequestT, ResultT]):
    """A thread that calls a function with all requests that have arrived.

    If the function raises an error, the requests without a result are processed one by one, so that an invalid
    request does not affect others.
    """

    def __init__(
        self,
        process: Callable[[Sequence[RequestT]], Iterable[tuple[int, ResultT | Exception]]],
        *,
        batch_size: int = 32,
        max_delay: float = 0.005,
    ) -> None:
        """Start the thread.

        Args:
            process: Function from requests to (index, result or error) in any order. Results are delivered immediately.
            batch_size: Maximum number of requests per call. Default: 32.
            max_delay: Maximum time in seconds that a request waits for others. Default: 0.005.
        """
        self._process = process
        self._batch_size = batch_size
        self._max_delay = max_delay
        self._queue: queue.Queue[tuple[RequestT, Future[ResultT]] | None] = queue.Queue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, request: RequestT) -> Future[ResultT]:
        """Queue a request.

        Args:
            request: The request.

        Returns:
            The future result.

        Raises:
            RuntimeError: The batcher is closed.
        """
        if self._closed:
            raise RuntimeError("the batcher is closed")
        future: Future[ResultT] = Future()
        self._queue.put((request, future))
        return future

    @property
    def is_alive(self) -> bool:
        """True while requests are processed."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Process the queued requests, then stop the thread."""
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
            error: Exception = RuntimeError("the request got no result")
        except Exception as raised:  # any error is delivered to the request that caused it
            error = raised
        for item in batch:
            if not item[1].done() and len(batch) > 1:
                self._process_batch([item])
            elif not item[1].done():
                item[1].set_exception(error)
