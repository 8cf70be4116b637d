"""Time limits of requests, and their end when the server stops."""

from __future__ import annotations

import asyncio

import pytest

from vpt.serving.deadlines import Deadlines
from vpt.serving.responses import RequestError


def test_stop_as_a_limit_expires_ends_the_request() -> None:
    deadlines, errors = Deadlines(), []

    def stop(timeout: asyncio.Timeout) -> None:
        try:
            deadlines.stop()
        except RuntimeError as error:
            errors.append(error)
        assert timeout.expired()

    async def request() -> None:
        async with deadlines.limit(0.01, stop_after=0):
            (timeout,) = deadlines._limits
            asyncio.get_running_loop().call_at((timeout.when() or 0) + 1e-9, stop, timeout)  # before the block ends
            await asyncio.sleep(60)

    with pytest.raises(RequestError, match="the server is stopping"):
        asyncio.run(request())
    assert errors == []


def test_stop_shortens_limits_and_never_lengthens_them() -> None:
    async def seconds_left(seconds: float | None, stop_after: float) -> float:
        deadlines = Deadlines()
        async with deadlines.limit(seconds, stop_after=stop_after):
            deadlines.stop()
            (timeout,) = deadlines._limits
            return (timeout.when() or 0) - asyncio.get_running_loop().time()

    for seconds, stop_after, expected in ((None, 8, 8), (100, 8, 8), (5, 8, 5)):
        assert asyncio.run(seconds_left(seconds, stop_after)) == pytest.approx(expected, abs=0.5)
