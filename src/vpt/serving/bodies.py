"""Bodies of requests: read within a time and a size, and discarded where the response comes first."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vpt.serving.deadlines import Deadlines
from vpt.serving.responses import RequestError

_DRAIN_SECONDS = 10.0


class BodyReader:
    """The bodies of all requests, which must be complete in time and fit into memory together."""

    def __init__(self, deadlines: Deadlines, *, seconds: float, max_total: int) -> None:
        """Create a reader.

        Args:
            deadlines: Time limits of the server.
            seconds: Maximum time until a body is complete.
            max_total: Maximum number of bytes of all bodies in memory.
        """
        self._deadlines = deadlines
        self._seconds = seconds
        self._total = self._free = max_total

    @asynccontextmanager
    async def read(self, request: Request, max_bytes: int) -> AsyncIterator[bytes]:
        """Read a body, and count it as memory in use during a block.

        Args:
            request: The request.
            max_bytes: Maximum length. It is checked while reading too, because the announced length may be wrong.

        Yields:
            The body.

        Raises:
            RequestError: The body is too long, comes too slowly, or exceeds the memory for all bodies.
        """
        max_bytes = min(max_bytes, self._total)  # what never fits is not to be tried again
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > max_bytes:
            raise _too_long(max_bytes)
        chunks: list[bytes] = []
        length = 0
        try:
            try:
                async with self._deadlines.limit(self._seconds, stop_after=0):
                    async for chunk in request.stream():
                        if length + len(chunk) > max_bytes:
                            raise _too_long(max_bytes)
                        if len(chunk) > self._free:
                            raise RequestError(503, "too many images are on their way; try again in a moment")
                        self._free -= len(chunk)
                        length += len(chunk)
                        chunks.append(chunk)
            except TimeoutError:
                raise RequestError(
                    408, f"the body is incomplete after {self._seconds:g} s; send it faster, or a smaller file"
                ) from None
            yield _take(chunks)
        finally:
            self._free += length


def _take(chunks: list[bytes]) -> bytes:
    """Join chunks and forget them, so that the caller has the only copy."""
    joined = b"".join(chunks)
    chunks.clear()
    return joined


def _too_long(max_bytes: int) -> RequestError:
    return RequestError(413, f"the body has more than {max_bytes / 1e6:.0f} MB; send a smaller file")


class DrainedBodies:
    """Middleware that reads what is left of a body after an early response.

    A connection that closes while data arrive is reset, and the client loses the response.
    """

    def __init__(self, app: ASGIApp, deadlines: Deadlines) -> None:
        """Wrap an application.

        Args:
            app: The application.
            deadlines: Time limits of the server.
        """
        self._app = app
        self._deadlines = deadlines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request.

        Args:
            scope: The request.
            receive: Returns the next part of the body.
            send: Sends a part of the response.
        """
        names = {name for name, _ in scope["headers"]} if scope["type"] == "http" else set()
        is_incomplete, is_late = bool(names & {b"content-length", b"transfer-encoding"}), False

        async def receive_part() -> Message:
            nonlocal is_incomplete
            message = await receive()
            is_incomplete = message.get("more_body", False)
            return message

        async def send_part(message: Message) -> None:
            nonlocal is_late
            if message["type"] == "http.response.start" and is_incomplete:
                is_late = message["status"] == 408  # what is left may never come
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            elif message["type"] == "http.response.body" and is_incomplete and not message.get("more_body"):
                await send({**message, "more_body": True})
                with suppress(TimeoutError, RequestError):
                    async with self._deadlines.limit(0 if is_late else _DRAIN_SECONDS, stop_after=0):
                        while is_incomplete:
                            await receive_part()
                message = {"type": "http.response.body"}
            await send(message)

        await self._app(scope, receive_part, send_part)
