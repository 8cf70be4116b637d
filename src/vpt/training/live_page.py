"""A page that a running job keeps up to date: one HTML file that a browser reads again by itself, without a server."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from vpt.core.io import write_atomic
from vpt.training.callbacks import Callback

REFRESH_SECONDS = 10.0


class LivePage(Callback, ABC):
    """Base of callbacks that keep a page up to date.

    It is written at most every `REFRESH_SECONDS`, and read whole at any time. A page that cannot be written stops no
    job.

    Attributes:
        path: The HTML file.
    """

    def __init__(
        self, path: Path, on_failure: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Write no page yet: the first event does.

        Args:
            path: The HTML file.
            on_failure: Function that receives one message if the page cannot be written.
            clock: Function that returns the time in seconds. Default: the time of this machine.
        """
        self.path: Path = path
        self._clock, self._written = clock, float("-inf")
        self._on_failure, self._failed = on_failure, False

    @property
    def _has_begun(self) -> bool:
        return self._written > float("-inf")

    def close(self) -> None:
        """Write the page a last time; a browser does not read it again."""
        self._write(refresh=False)

    @abstractmethod
    def render(self, refresh: bool) -> str:
        """Return the page.

        Args:
            refresh: True if a browser is to read it again after `REFRESH_SECONDS`; False for the last page.

        Returns:
            The HTML.
        """

    def _update(self) -> None:
        if self._clock() - self._written >= REFRESH_SECONDS:
            self._write(refresh=True)
            self._written = self._clock()

    def _write(self, *, refresh: bool) -> None:
        try:
            write_atomic(self.path, self.render(refresh).encode())
        except Exception as error:  # of any kind: the job goes on
            if not self._failed:
                self._on_failure(f"{self.path} could not be written: {error}; the work goes on without it")
            self._failed = True
