"""Progress of preparing and checking data: a bar with the time left for people, a line now and then for logs."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vpt.cli.units import format_duration

PLAIN_INTERVAL = 30.0  # seconds


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
        self._current_task: tuple[str, TaskID] | None = None
        self._stage, self._start, self._last_print = "", 0.0, 0.0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def print_line(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._start, self._last_print = stage, now, now
        if self.console.is_terminal:
            self._update_bar(stage, done, total)
        elif done and now - self._last_print > PLAIN_INTERVAL:
            self._last_print = now
            self.print_line(
                f"{stage}: {done}/{total}  {format_duration((now - self._start) / done * (total - done))} left"
            )

    def _update_bar(self, stage: str, done: int, total: int) -> None:
        if self._current_task is None or self._current_task[0] != stage:
            if self._current_task is not None:
                self._bar.remove_task(self._current_task[1])
            self._current_task = (stage, self._bar.add_task(stage, total=total))
        self._bar.update(self._current_task[1], completed=done, total=total)
