"""Signals that end a command: what is open is closed, and a word says what is kept."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_PATIENCE = 2.0  # seconds in which further signals are ignored: an impatient one must not break off the cleaning up
_HANGUP: Any = getattr(signal, "SIGHUP", None)  # Windows has none


class Stopped(KeyboardInterrupt):
    """A signal to end, raised in the main thread. Whatever handles Ctrl-C handles it.

    Attributes:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        """Keep the number of the signal."""
        super().__init__(number)
        self.number = number


@contextmanager
def raise_on_signals(*, ignore_hangup: bool) -> Iterator[None]:
    """Raise `Stopped` on Ctrl-C, SIGTERM and SIGHUP during a `with` block. After one that ends it, ignore them.

    A signal that the caller of the process has it ignore, as `nohup` does, stays ignored.

    Args:
        ignore_hangup: True goes on when the terminal is closed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = -math.inf

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > _PATIENCE:
            last = time.monotonic()
            raise Stopped(number)

    handlers: dict[int, Any] = {signal.SIGINT: stop, signal.SIGTERM: stop}
    if _HANGUP is not None:
        handlers[_HANGUP] = (
            signal.SIG_IGN if ignore_hangup else stop
        )  # processes that start here inherit an ignored one
    before = {}
    for number, handler in handlers.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if last == -math.inf else signal.SIG_IGN)
