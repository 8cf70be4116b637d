"""A port for a server that starts a little later."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """Return a port that nobody listens at, outside of those that systems give to connections."""
    drawn = random.SystemRandom()
    while True:
        port = drawn.randrange(20_000, 32_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
