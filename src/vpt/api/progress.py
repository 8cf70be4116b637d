"""Progress on stderr: a live line on a terminal, plain lines in pipes and logs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vpt.core.units import format_duration
from vpt.training.callbacks import Callback
from vpt.training.config import TaskConfig
from vpt.training.history import EpochMetrics

PLAIN_INTERVAL = 30.0  # seconds between plain lines within a long epoch


class ConsoleCallback(Callback):
    """Callback that prints decoding, training with loss, metric and time left, and notes. Use as a context manager."""

    def __init__(self, prefix: str = "") -> None:
        """Prepare the progress bar.

        Args:
            prefix: Text before every line. Default: none.
        """
        self.console: Console = Console(stderr=True, highlight=False)
        self.prefix: str = prefix
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._started = self._last_printed = time.monotonic()
        self._steps_per_epoch = self._completed_steps = self._initial_steps = 0
        self._num_epochs = 0

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

    def on_note(self, text: str) -> None:  # noqa: D102
        self.console.print(f"note: {text}", markup=False, soft_wrap=True)

    def on_data_progress(self, split: str, done: int, total: int) -> None:  # noqa: D102
        if self.console.is_terminal:
            self._update_bar(split, done, total)
        elif done == total:
            self.console.print(f"{self.prefix}{split}: {total} images read", markup=False)

    def on_train_start(  # noqa: D102
        self, config: TaskConfig, steps_per_epoch: int, completed_epochs: Sequence[EpochMetrics]
    ) -> None:
        self._steps_per_epoch, self._num_epochs = steps_per_epoch, config.num_epochs
        self._completed_steps = self._initial_steps = len(completed_epochs) * steps_per_epoch
        self._started = self._last_printed = time.monotonic()
        if completed_epochs:
            self.console.print(f"going on after epoch {len(completed_epochs)} of {config.num_epochs}", markup=False)

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:  # noqa: D102
        self._completed_steps = (epoch - 1) * self._steps_per_epoch + step
        if self.console.is_terminal:
            self._update_bar(
                f"epoch {epoch}/{self._num_epochs}",
                self._completed_steps,
                self._steps_per_epoch * self._num_epochs,
                f"loss {loss:.3f}",
            )
        elif time.monotonic() - self._last_printed > PLAIN_INTERVAL:
            self._print_line(f"epoch {epoch}/{self._num_epochs}  step {step}/{self._steps_per_epoch}  loss {loss:.3f}")

    def on_epoch(self, record: EpochMetrics) -> None:  # noqa: D102
        done = f"epoch {record.epoch}/{self._num_epochs}"
        text = f"{done}  loss {record.train_loss:.3f}  train {100 * record.train_metric:.1f} %"
        self._print_line(text if record.val_metric is None else f"{text}  val {100 * record.val_metric:.1f} %")

    def _print_line(self, text: str) -> None:
        self._last_printed = time.monotonic()
        self.console.print(f"{self.prefix}{text}{self._format_time_left()}", markup=False, soft_wrap=True)

    def _format_time_left(self) -> str:
        completed, remaining = (
            self._completed_steps - self._initial_steps,
            self._steps_per_epoch * self._num_epochs - self._completed_steps,
        )
        if completed <= 0 or remaining <= 0:
            return ""
        return f"  {format_duration((self._last_printed - self._started) / completed * remaining)} left"

    def _update_bar(self, name: str, done: int, total: int, figures: str = "") -> None:
        key = "training" if name.startswith("epoch") else name
        if key not in self._tasks:
            self._tasks[key] = self._bar.add_task(self.prefix + name, total=total, figures=figures)
        self._bar.update(
            self._tasks[key], completed=done, total=total, description=self.prefix + name, figures=figures,
            visible=done < total,
        )  # fmt: skip
