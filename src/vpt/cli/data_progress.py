"""Progress of data preparation: a bar on terminals, otherwise a line every 30 seconds."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vpt.core.units import format_duration

PLAIN_INTERVAL = 30.0  # seconds


class DataProgress:
    """A context manager that is called as (description, done, total). All output goes to stderr."""

    def __init__(self) -> None:
        """Create the progress bar."""
        self.console: Console = Console(stderr=True, highlight=False)
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
        """Start the bar on terminals.

        Returns:
            This object.
        """
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar.

        Args:
            kind: Type of the error that ends the context, or None.
            error: The error, or None.
            trace: Its traceback, or None.
        """
        if self.console.is_terminal:
            self._bar.stop()

    def print_line(self, text: str) -> None:
        """Print a permanent line.

        Args:
            text: The line.
        """
        self.console.print(text, markup=False, soft_wrap=True)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a stage.

        Args:
            stage: Description of the stage.
            done: Number of completed items.
            total: Number of items.
        """
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
