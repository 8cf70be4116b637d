"""Progress on stderr: a live line on a terminal, plain lines in pipes and logs."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vpt.core.text import format_duration, printable
from vpt.training.callbacks import Callback, EpochMetrics
from vpt.training.config import TaskConfig

PLAIN_INTERVAL = 30.0  # seconds between plain lines within a long epoch


class ConsoleProgress:
    """A bar on terminals, and permanent lines. Use as a context manager. All output goes to stderr."""

    def __init__(self, prefix: str = "") -> None:
        """Prepare the progress bar.

        Args:
            prefix: Text before every description. Default: none.
        """
        self.console: Console = Console(stderr=True, highlight=False)
        self.prefix: str = prefix
        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
        description, figures = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[figures]}")
        self._bar = Progress(description, *columns, figures, console=self.console, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._started = self._last_printed = time.monotonic()

    def __enter__(self) -> Self:
        """Show the progress bar."""
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the progress bar."""
        if self.console.is_terminal:
            self._bar.stop()

    def print_line(self, text: str) -> None:
        """Print a permanent line.

        Args:
            text: The line.
        """
        self.console.print("\n".join(map(printable, text.split("\n"))), markup=False, soft_wrap=True)

    def _restart_clock(self) -> None:
        self._started = self._last_printed = time.monotonic()

    def _is_line_due(self) -> bool:
        return time.monotonic() - self._last_printed > PLAIN_INTERVAL

    def _print_with_time_left(self, text: str, completed: int, remaining: int) -> None:
        """Print a line with the time left at the speed since the clock was restarted."""
        self._last_printed = time.monotonic()
        if completed > 0 and remaining > 0:
            text += f"  {format_duration((self._last_printed - self._started) / completed * remaining)} left"
        self.print_line(self.prefix + text)

    def _update_bar(self, name: str, done: int, total: int, figures: str = "", key: str | None = None) -> None:
        """Show the progress of a task. A task with the same key as an earlier one takes its line."""
        key, description = key or name, self.prefix + name
        if key not in self._tasks:
            self._tasks[key] = self._bar.add_task(description, total=total, figures=figures)
        self._bar.update(self._tasks[key], description=description, figures=figures, visible=done < total)
        self._bar.update(self._tasks[key], completed=done, total=total)


class ConsoleCallback(ConsoleProgress, Callback):
    """Callback that prints decoding, training with loss, metric and time left, and notes. Use as a context manager."""

    _steps_per_epoch = _completed_steps = _initial_steps = _num_epochs = 0

    def on_note(self, text: str) -> None:  # noqa: D102
        self.print_line(f"note: {text}")

    def on_data(self, lines: Sequence[str]) -> None:  # noqa: D102
        for line in lines:
            self.print_line(line)

    def on_data_progress(self, split: str, done: int, total: int) -> None:  # noqa: D102
        if self.console.is_terminal:
            self._update_bar(split, done, total)
        elif done == total:
            self.print_line(f"{self.prefix}{split}: {total} images read")

    def on_train_start(  # noqa: D102
        self, config: TaskConfig, steps_per_epoch: int, completed_epochs: Sequence[EpochMetrics]
    ) -> None:
        self._steps_per_epoch, self._num_epochs = steps_per_epoch, config.num_epochs
        self._completed_steps = self._initial_steps = len(completed_epochs) * steps_per_epoch
        self._restart_clock()
        if completed_epochs:
            self.print_line(f"going on after epoch {len(completed_epochs)} of {config.num_epochs}")

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:  # noqa: D102
        self._completed_steps = (epoch - 1) * self._steps_per_epoch + step
        name = f"epoch {epoch}/{self._num_epochs}"
        if self.console.is_terminal:
            total = self._steps_per_epoch * self._num_epochs
            self._update_bar(name, self._completed_steps, total, f"loss {loss:.3f}", key="training")
        elif self._is_line_due():
            self._print_training(f"{name}  step {step}/{self._steps_per_epoch}  loss {loss:.3f}")

    def on_epoch(self, record: EpochMetrics) -> None:  # noqa: D102
        text = f"epoch {record.epoch}/{self._num_epochs}  loss {record.train_loss:.3f}"
        text += f"  train {100 * record.train_metric:.1f} %"
        self._print_training(text if record.val_metric is None else f"{text}  val {100 * record.val_metric:.1f} %")

    def _print_training(self, text: str) -> None:
        remaining = self._steps_per_epoch * self._num_epochs - self._completed_steps
        self._print_with_time_left(text, self._completed_steps - self._initial_steps, remaining)
