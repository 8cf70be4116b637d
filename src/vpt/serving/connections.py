"""The uvicorn server: connections that stall are closed, their number is limited, and it stops without noise."""

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from vpt.serving.deadlines import GRACE_SECONDS

MAX_CONNECTIONS = 512
STALL_SECONDS = 20.0  # until the headers of a request have come, or a part of a response is taken
_PART_BYTES = 2**14  # of such a part, at least: a client that takes single bytes would keep its connection for ever


class _State(ServerState):
    """What connections share; stopping: no further connection is taken."""

    stopping = False


class _Connection(H11Protocol):
    """A connection that is closed if the client stalls outside the body of a request, which has its own limit."""

    server_state: _State
    _headers_timer: asyncio.TimerHandle | None = None
    _response_timer: asyncio.TimerHandle | None = None
    _shutdown_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._headers_timer = self._close_after(STALL_SECONDS, transport.close)
        # A connection may be made after `shutdown` has gone through the others.
        if self.server_state.stopping or len(self.connections) > MAX_CONNECTIONS:
            transport.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._headers_timer = _canceled(self._headers_timer)
        elif self._headers_timer is None:
            self._headers_timer = self._close_after(STALL_SECONDS, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._require_progress(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._response_timer = _canceled(self._response_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._headers_timer = _canceled(self._headers_timer)
        self._response_timer = _canceled(self._response_timer)
        self._shutdown_timer = _canceled(self._shutdown_timer)

    def shutdown(self) -> None:
        super().shutdown()
        self._shutdown_timer = self._close_after(GRACE_SECONDS - 1, self.transport.abort)

    def _require_progress(self, waiting: int) -> None:
        """Close the connection if the client takes too little of a response, of which some bytes are waiting."""

        def check() -> None:
            if (left := self.transport.get_write_buffer_size()) <= waiting - _PART_BYTES:
                self._require_progress(left)
            else:
                self.transport.abort()

        self._response_timer = self._close_after(STALL_SECONDS, check)

    def _close_after(self, seconds: float, close: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, close)


def _canceled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer, and return what takes its place: none."""
    if timer is not None:
        timer.cancel()
    return None


class Server(uvicorn.Server):
    """A server that ends requests within the grace time, and its process without an error."""

    def __init__(self, application: Starlette) -> None:
        """Create a server.

        Args:
            application: Application of `create_app`.
        """
        self._application = application
        super().__init__(
            uvicorn.Config(
                application,
                loop="asyncio",  # also beside packages that install uvloop, whose buffers are others
                http=_Connection,
                ws="none",
                log_level="warning",
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self.server_state: _State = _State()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shorten the time limits of requests, then wait for them.

        Args:
            sockets: Sockets that are closed.
        """
        self.server_state.stopping = True
        self._application.state.deadlines.stop()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at a signal, which is not raised again afterwards: to be stopped is no error of a server.

        Args:
            sig: Number of the signal.
            frame: Current stack frame.
        """
        self.force_exit: bool = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
