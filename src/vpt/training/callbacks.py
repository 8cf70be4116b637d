"""The callback protocol of everything that takes time: reading data, training, scoring, and series of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vpt.training.config import TaskConfig
from vpt.training.history import EpochMetrics


class Callback:
    """Base class of callbacks. Every method does nothing; override the events of interest."""

    def on_note(self, text: str) -> None:
        """Receive a message that the user should read.

        Args:
            text: One sentence.
        """

    def on_data_progress(self, split: str, done: int, total: int) -> None:
        """Receive progress on the images of a split: decoded before training, or scored after it.

        Args:
            split: Name of the split or of the stage, such as "train" or "scoring test".
            done: Number of images that are finished.
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
        """Receive the end of an epoch, after its checkpoint is written.

        Args:
            record: Metrics of the epoch.
        """

    def on_train_end(self, metrics: Mapping[str, float]) -> None:
        """Receive the end of a job, after the model is scored and saved. A job that fails has no such event.

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


class CallbackList(Callback):
    """A callback that passes every event on to several others, in order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        """Combine callbacks.

        Args:
            callbacks: The callbacks, in the order in which they receive each event.
        """
        self.callbacks: tuple[Callback, ...] = tuple(callbacks)

    def on_note(self, text: str) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_note(text)

    def on_data_progress(self, split: str, done: int, total: int) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_data_progress(split, done, total)

    def on_train_start(  # noqa: D102
        self, config: TaskConfig, steps_per_epoch: int, completed_epochs: Sequence[EpochMetrics]
    ) -> None:
        for callback in self.callbacks:
            callback.on_train_start(config, steps_per_epoch, completed_epochs)

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_step(epoch, step, loss, lr)

    def on_epoch(self, record: EpochMetrics) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_epoch(record)

    def on_train_end(self, metrics: Mapping[str, float]) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_train_end(metrics)

    def on_run_start(self, index: int, total: int, label: str, seed: int) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_run_start(index, total, label, seed)

    def on_run_end(self, run: Any, record: Any) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_run_end(run, record)

    def on_progress(self, done: int, total: int, eta_seconds: float | None) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_progress(done, total, eta_seconds)
