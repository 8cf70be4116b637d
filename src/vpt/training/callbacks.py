"""The callback protocol of everything that takes time: reading data, training, scoring, and series of runs.

`EpochMetrics` is the record of an epoch that callbacks receive.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from vpt.training.task_config import TaskConfig

Progress = Callable[[int, int], None]  # receives the number of finished images and of all images


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of one training epoch, or of one evaluation interval of a segmentation model.

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: Mean training loss per image.
        train_metric: Metric in training: top-1, the fraction of correct labels where an image has several, or R²;
            pixel accuracy for segmentation. At most 1.
        val_loss: Mean validation loss, or None without validation images.
        val_metric: The metric that counts on validation images, such as top-1 or R²; mean IoU for segmentation; None
            without them.
        lr: Learning rate of the last step.
        seconds: Wall time of the epoch, validation included.
        metrics: Split and name of a metric -> value, such as "train_top1" and "val_top1". What training counts is there
            on val, too. Empty in records of earlier versions.
    """

    epoch: int
    train_loss: float
    train_metric: float
    val_loss: float | None
    val_metric: float | None
    lr: float
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)


class Callback:
    """Base class of callbacks. Every method does nothing; override the events of interest."""

    def on_note(self, text: str) -> None:
        """Receive a message that the user should read.

        Args:
            text: One sentence.
        """

    def on_data(self, lines: Sequence[str]) -> None:
        """Receive the overview of the data, before they are decoded for training.

        Args:
            lines: One screen: classes with counts, splits, sizes, what is odd.
        """

    def on_data_progress(self, split: str, done: int, total: int) -> None:
        """Receive progress on the images of a split: decoded before training, or scored after it.

        Args:
            split: Name of the split or of the stage, such as "train" or "scoring test".
            done: Number of images done.
            total: Number of all images of the split.
        """

    def on_train_start(
        self, config: TaskConfig, steps_per_epoch: int, completed_epochs: Sequence[EpochMetrics]
    ) -> None:
        """Receive the start of training, or its resumption from a checkpoint.

        Args:
            config: The training configuration.
            steps_per_epoch: Optimizer steps in each epoch.
            completed_epochs: Records of the epochs that an interrupted run completed; empty for a new run.
        """

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        """Receive the end of an optimizer step.

        Args:
            epoch: Number of the epoch, from 1.
            step: Number of the step within the epoch, from 1.
            loss: Mean loss of the batch.
            lr: Learning rate of the step.
        """

    def on_epoch(self, record: EpochMetrics) -> None:
        """Receive the metrics of an epoch, after its checkpoint is written.

        Args:
            record: Metrics of the epoch.
        """

    def on_train_end(self, metrics: Mapping[str, float]) -> None:
        """Receive the final metrics, after the model is scored and saved. Not called if the job fails.

        Args:
            metrics: Final metrics by name, such as "test_top1", between 0 and 1.
        """

    def on_run_start(self, index: int, total: int, label: str, seed: int) -> None:
        """Receive the start of one of several runs.

        Args:
            index: Number of the run, from 1.
            total: Number of all runs.
            label: Description of the run, such as its method.
            seed: Seed of the run.
        """

    def on_run_end(self, run: Any, record: Any) -> None:
        """Receive the end of one of several runs, in this process or in another one.

        Args:
            run: The run, a `vpt.experiments.experiment.Run`.
            record: Its result or its error, a `vpt.experiments.store.Record`.
        """

    def on_progress(self, done: int, total: int, eta_seconds: float | None) -> None:
        """Receive progress on several runs.

        Args:
            done: Number of runs that have ended.
            total: Number of all runs.
            eta_seconds: Estimated time to the end, or None before the first run has ended.
        """


_EVENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class CallbackList(Callback):
    """A callback that passes every event on to several others, in order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        """Combine callbacks.

        Args:
            callbacks: The callbacks, in the order in which they receive each event.
        """
        self.callbacks: tuple[Callback, ...] = tuple(callbacks)
        for event in _EVENTS:
            setattr(self, event, partial(self._pass_on, event))

    def _pass_on(self, event: str, *args: Any, **kwargs: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*args, **kwargs)


class HistoryCallback(Callback):
    """Callback that keeps the metrics of all epochs, those before a resumption included.

    Attributes:
        history: The metrics, in order.
    """

    def __init__(self) -> None:
        """Create an empty history."""
        self.history: list[EpochMetrics] = []

    def on_train_start(  # noqa: D102
        self, config: TaskConfig, steps_per_epoch: int, completed_epochs: Sequence[EpochMetrics]
    ) -> None:
        self.history = list(completed_epochs)

    def on_epoch(self, record: EpochMetrics) -> None:  # noqa: D102
        self.history.append(record)


class LoggingCallback(Callback):
    """Callback that passes notes and epochs on to the logger `vpt` of Python's `logging`."""

    def on_note(self, text: str) -> None:  # noqa: D102
        logging.getLogger("vpt").info(text)

    def on_epoch(self, record: EpochMetrics) -> None:  # noqa: D102
        logging.getLogger("vpt").debug("epoch %d: loss %.4f", record.epoch, record.train_loss)
