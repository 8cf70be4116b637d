"""Time limits of requests, which end earlier when the server stops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vpt.serving.responses import RequestError

GRACE_SECONDS = 10  # for requests in progress when the server stops


class Deadlines:
    """The time limits of all requests in progress."""

    def __init__(self) -> None:
        self._limits: dict[asyncio.Timeout, float] = {}
        self.stopping: bool = False

    @asynccontextmanager
    async def limit(self, seconds: float | None, *, stop_after: float) -> AsyncIterator[None]:
        """Limit the time of a block.

        Args:
            seconds: Maximum time. Default: no maximum until the server stops.
            stop_after: Seconds that remain once the server stops.

        Yields:
            Nothing.

        Raises:
            TimeoutError: The time is over.
            RequestError: The time is over because the server stops.
        """
        if self.stopping:
            seconds = stop_after if seconds is None else min(seconds, stop_after)
        try:
            async with asyncio.timeout(seconds) as timeout:
                self._limits[timeout] = stop_after
                try:
                    yield
                finally:
                    del self._limits[timeout]
        except TimeoutError:
            if self.stopping:
                raise RequestError(503, "the server is stopping") from None
            raise

    def stop(self) -> None:
        """Shorten all limits, as the server stops."""
        self.stopping = True
        now = asyncio.get_running_loop().time()
        for timeout, seconds in self._limits.items():
            if timeout.expired():  # its block is about to end, and it can no longer be changed
                continue
            end = timeout.when()
            timeout.reschedule(now + seconds if end is None else min(end, now + seconds))
