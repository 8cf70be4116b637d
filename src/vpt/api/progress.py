"""Progress on stderr: a live line on a terminal, plain lines in pipes and logs."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from vpt.core.metrics import PLAIN_METRICS
from vpt.core.terminal import fit_width
from vpt.core.text import format_duration, printable
from vpt.plots.metric_lines import metric_lines
from vpt.tasks.registry import TASKS
from vpt.training.callbacks import Callback, EpochMetrics
from vpt.training.task_config import TaskConfig

PLAIN_INTERVAL = 30.0  # seconds between plain lines within a long epoch


class ConsoleProgress:
    """A bar on terminals, and permanent lines. Use as a context manager. All output goes to stderr."""

    _time_left: tuple[type[ProgressColumn], ...] = (TimeRemainingColumn,)  # columns with the time left of each bar

    def __init__(self, prefix: str = "") -> None:
        """Prepare the progress bar.

        Args:
            prefix: Text before every description. Default: none.
        """
        self.console: Console = Console(stderr=True, highlight=False)
        self.prefix: str = prefix
        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), *(column() for column in self._time_left))
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
        lines = fit_width("\n".join(map(printable, text.split("\n"))), sys.stderr)
        self.console.print(lines, markup=False, soft_wrap=True)

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
        if self._time_left:  # of one bar at a time: a training that ended early leaves its own behind
            for other in self._tasks.keys() - {key}:
                self._bar.update(self._tasks[other], visible=False)
        if key not in self._tasks:
            self._tasks[key] = self._bar.add_task(description, total=total, figures=figures)
        self._bar.update(self._tasks[key], description=description, figures=figures, visible=done < total)
        self._bar.update(self._tasks[key], completed=done, total=total)


class ConsoleCallback(ConsoleProgress, Callback):
    """Callback that prints decoding, training with loss, metric and time left, and notes. Use as a context manager."""

    _steps_per_epoch = _completed_steps = _initial_steps = _num_epochs = 0
    _labels: Mapping[str, str] = {}  # of metrics

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
        self._labels = TASKS[config.task].metrics
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
        for metric, lines in metric_lines([asdict(record)]).items():
            values = {split: value for split, ((_, value),) in lines.items()}
            is_plain = metric in PLAIN_METRICS
            shown = (f"{split} {x:.3g}" if is_plain else f"{split} {100 * x:.1f} %" for split, x in values.items())
            text += f"  {self._labels.get(metric, metric)} {', '.join(shown)}"
        self._print_training(text)

    def _print_training(self, text: str) -> None:
        remaining = self._steps_per_epoch * self._num_epochs - self._completed_steps
        self._print_with_time_left(text, self._completed_steps - self._initial_steps, remaining)
