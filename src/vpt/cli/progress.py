"""Progress on the terminal: a live line for people, plain lines for pipes and logs. All of it goes to stderr."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vpt.cli.units import duration
from vpt.training import EpochMetrics, TrainingConfig
from vpt.training.job import Listener

PLAIN_EVERY = 30.0  # seconds between plain lines within a long epoch


class ConsoleListener(Listener):
    """Shows decoding, training with ETA, loss and top-1, and notes. Use as a context manager."""

    def __init__(self, prefix: str = "") -> None:
        self.console = Console(stderr=True, highlight=False)
        self.prefix = prefix
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
        self._began = self._spoke = time.monotonic()
        self._steps = self._done = self._at_start = 0
        self._epochs = 0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def note(self, text: str) -> None:
        self.console.print(f"note: {text}", markup=False, soft_wrap=True)

    def decoding(self, part: str, done: int, total: int) -> None:
        if self.console.is_terminal:
            self._show(part, done, total)
        elif done == total:
            self.console.print(f"{self.prefix}{part}: {total} images read", markup=False)

    def begin(self, config: TrainingConfig, steps_per_epoch: int, done: Sequence[EpochMetrics]) -> None:
        self._steps, self._epochs = steps_per_epoch, config.epochs
        self._done = self._at_start = len(done) * steps_per_epoch
        self._began = self._spoke = time.monotonic()
        if done:
            self.console.print(f"going on after epoch {len(done)} of {config.epochs}", markup=False)

    def step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        self._done = (epoch - 1) * self._steps + step
        if self.console.is_terminal:
            self._show(f"epoch {epoch}/{self._epochs}", self._done, self._steps * self._epochs, f"loss {loss:.3f}")
        elif time.monotonic() - self._spoke > PLAIN_EVERY:
            self._say(f"epoch {epoch}/{self._epochs}  step {step}/{self._steps}  loss {loss:.3f}")

    def epoch(self, epoch: EpochMetrics) -> None:
        text = (
            f"epoch {epoch.epoch}/{self._epochs}  loss {epoch.train_loss:.3f}  train {100 * epoch.train_metric:.1f} %"
        )
        self._say(text if epoch.val_metric is None else f"{text}  val {100 * epoch.val_metric:.1f} %")

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        self.console.print(f"{self.prefix}{text}{self._left()}", markup=False, soft_wrap=True)

    def _left(self) -> str:
        new, rest = self._done - self._at_start, self._steps * self._epochs - self._done
        if new <= 0 or rest <= 0:
            return ""
        return f"  {duration((self._spoke - self._began) / new * rest)} left"

    def _show(self, name: str, done: int, total: int, figures: str = "") -> None:
        key = "training" if name.startswith("epoch") else name
        if key not in self._tasks:
            self._tasks[key] = self._bar.add_task(self.prefix + name, total=total, figures=figures)
        self._bar.update(
            self._tasks[key], completed=done, total=total, description=self.prefix + name, figures=figures,
            visible=done < total,
        )  # fmt: skip
