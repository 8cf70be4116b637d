"""Progress of preparing and checking data: a bar with the time left for people, a line now and then for logs."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vpt.cli.units import duration

PLAIN_EVERY = 30.0  # seconds


class DataProgress:
    """Called as (what, done, total). Use as a context manager. All of it goes to stderr, `say` too."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self.console, transient=True)
        self._shown: tuple[str, TaskID] | None = None
        self._what, self._began, self._spoke = "", 0.0, 0.0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._began, self._spoke = what, now, now
        if self.console.is_terminal:
            self._show(what, done, total)
        elif done and now - self._spoke > PLAIN_EVERY:
            self._spoke = now
            self.say(f"{what}: {done}/{total}  {duration((now - self._began) / done * (total - done))} left")

    def _show(self, what: str, done: int, total: int) -> None:
        if self._shown is None or self._shown[0] != what:
            if self._shown is not None:
                self._bar.remove_task(self._shown[1])
            self._shown = (what, self._bar.add_task(what, total=total))
        self._bar.update(self._shown[1], completed=done, total=total)
