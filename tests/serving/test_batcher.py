"""The batcher: one failing, cancelled or unprocessed request does not disturb the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from vpt.serving.batcher import Batcher


def test_batcher_with_failing_request_processes_the_others():
    def process(requests: Any) -> Iterator[tuple[int, Any]]:
        for index, number in reversed(list(enumerate(requests))):
            if number == 3:
                raise ValueError("three")
            yield index, KeyError(1) if number == 1 else 2 * number

    batcher = Batcher[int, int](process, batch_size=8, max_delay=0.2)
    futures = [batcher.submit(number) for number in range(5)]
    batcher.close()
    assert [future.result() for i, future in enumerate(futures) if i not in (1, 3)] == [0, 4, 8]
    for index, kind in ((1, KeyError), (3, ValueError)):
        with pytest.raises(kind):
            futures[index].result()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(1)


def test_batcher_with_cancelled_or_unprocessed_request_processes_the_others():
    go = threading.Event()

    def process(requests: Any) -> Iterator[tuple[int, Any]]:
        go.wait(60)
        yield from ((index, number) for index, number in enumerate(requests) if number < 2)

    batcher = Batcher[int, int](process, batch_size=1, max_delay=0)
    futures = [batcher.submit(number) for number in range(3)]
    assert futures[1].cancel()
    go.set()
    batcher.close()
    assert futures[0].result() == 0
    with pytest.raises(RuntimeError, match="got no result"):
        futures[2].result()
