"""Progress of data preparation: a bar on terminals, otherwise a line every 30 seconds."""

from __future__ import annotations

from vpt.api.progress import ConsoleProgress


class DataProgress(ConsoleProgress):
    """A context manager that is called as (description, done, total)."""

    _stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a stage.

        Args:
            stage: Description of the stage.
            done: Number of completed items.
            total: Number of items.
        """
        if stage != self._stage:
            self._stage = stage
            self._restart_clock()
            while self._tasks:
                self._bar.remove_task(self._tasks.popitem()[1])
        if self.console.is_terminal:
            self._update_bar(stage, done, total)
        elif done and self._is_line_due():
            self._print_with_time_left(f"{stage}: {done}/{total}", done, total - done)
