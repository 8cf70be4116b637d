"""Trials: a candidate is trained on some of the images, and predicts the others."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vpt.data.label_kinds import kind_of_labels
from vpt.model.label_kinds import Regression
from vpt.model.tuned_model import TunedModel
from vpt.search.budget import Budget, Clock
from vpt.search.data import Pool
from vpt.training import Callback, CallbackList, DeviceDataset, Examples, predict_logits
from vpt.training.job import Job
from vpt.tuning import train_model

_TENTHS = 10  # strata of numbers


@dataclass(frozen=True)
class Fold:
    """Images to train on and others to predict.

    Attributes:
        train: Rows of the pool that train.
        rows: Rows of `source` that are predicted.
        source: The pool, or val.
        source_features: Features of `source`.
    """

    train: NDArray[np.int64]
    rows: NDArray[np.int64]
    source: Examples
    source_features: NDArray[np.float16]

    @property
    def examples(self) -> Examples:
        """The images to predict; a copy, unless they are the first of `source`."""
        return select(self.source, self.rows)

    @property
    def labels(self) -> NDArray[Any]:
        """Labels of the images to predict (m, ...)."""
        return self.source.labels[self.rows]

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Group of each image to predict (m,), or None if every image is on its own."""
        return None if self.source.groups is None else self.source.groups[self.rows]

    @property
    def features(self) -> NDArray[np.float16]:
        """Features of the images to predict (m, width)."""
        return self.source_features[self.rows]


class OutOfTimeError(Exception):
    """A trial that cannot end within the budget."""


class Deadline(Callback):
    """Callback that ends a trial which turns out slower than planned."""

    def __init__(self, budget: Budget, seconds: float) -> None:
        """Set the deadline.

        Args:
            budget: The budget.
            seconds: Seconds from the start of the search at which the trial ends.
        """
        self.budget = budget
        self.seconds = seconds

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        """Raise OutOfTimeError after the deadline."""
        if self.budget.elapsed > self.seconds:
            raise OutOfTimeError


class StepTimer(Callback):
    """Callback that measures the time between steps.

    Attributes:
        times: Time at the end of each step.
    """

    def __init__(self, budget: Budget) -> None:
        """Measure by the clock of a budget."""
        self.clock: Clock = budget.clock
        self.times: list[float] = []

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:  # noqa: D102
        self.times.append(self.clock())


class StepsOnly(Callback):
    """Callback that passes on steps but no epochs, so that measurements leave no record of training."""

    def __init__(self, callback: Callback) -> None:
        """Pass on steps to another callback."""
        self.callback = callback

    def on_train_start(self, *args: Any) -> None:  # noqa: D102
        self.callback.on_train_start(*args)

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:  # noqa: D102
        self.callback.on_step(epoch, step, loss, lr)


class ImagesOnly(Callback):
    """Callback that passes on images that are read, and nothing else of a measurement."""

    def __init__(self, callback: Callback) -> None:
        """Pass on images to another callback."""
        self.callback = callback

    def on_data_progress(self, split: str, done: int, total: int) -> None:  # noqa: D102
        self.callback.on_data_progress(split, done, total)


def select(examples: Examples, rows: NDArray[np.int64]) -> Examples:
    """Return some of the images, without a copy where they are the first."""
    groups = None if examples.groups is None else examples.groups[rows]
    if np.array_equal(rows, np.arange(len(rows))) and examples.oversized is None:
        return Examples(examples.pixels[: len(rows)], examples.labels[: len(rows)], groups=groups)
    oversized: Any = None if examples.oversized is None else examples.oversized.select(rows)  # type: ignore[union-attr]
    return Examples(examples.pixels[rows], examples.labels[rows], oversized, groups)


def measure_step(pool: Pool, job: Job, budget: Budget, callback: Callback) -> float:
    """Return the seconds that a training step takes for an image, by the steps after the first one.

    Args:
        pool: The images.
        job: The job of the candidate.
        budget: The budget.
        callback: Receiver of progress.

    Returns:
        The seconds.
    """
    batch, timer = job.config.training.batch_size, StepTimer(budget)
    rows = np.resize(np.arange(len(pool.examples)), max(3, 2 * batch))  # two batches of one image may become one
    options = replace(job.options, ridge=None)  # type: ignore[call-arg]
    short = replace(
        job, config=job.config.replace(epochs=1, warmup_epochs=0, probe_epochs=0), head=None, options=options
    )
    steps = CallbackList([StepsOnly(callback), timer])
    train_model(short, pool.job_data(short, select(pool.examples, rows)), steps, pool.device)
    return (timer.times[-1] - timer.times[0]) / (len(rows) - batch)


def halves(pool: Pool, groups: NDArray[np.int64], seed: int) -> list[Fold]:
    """Return two folds of the pool with about the same labels; groups and near copies are in the same one.

    Args:
        pool: The images.
        groups: Group of each image (n,).
        seed: Seed of the folds.

    Returns:
        The folds: each half is predicted by what the other trains. One is empty if the images are a single group.
    """
    labels, rng = strata_of(pool.labels), np.random.default_rng(seed)
    side, taken = np.zeros(len(labels), np.int64), np.zeros((2, int(labels.max()) + 1), np.int64)
    members: dict[int, list[int]] = {}
    for index in rng.permutation(len(labels)):
        members.setdefault(int(groups[index]), []).append(int(index))
    for group in sorted(members.values(), key=lambda group: int(labels[group[0]])):
        label = labels[group[0]]
        chosen = int(np.lexsort((taken.sum(1), taken[:, label]))[0])
        side[group] = chosen
        np.add.at(taken[chosen], labels[group], 1)
    rows = [np.flatnonzero(side == fold) for fold in range(2)]
    return [Fold(rows[1 - k], rows[k], pool.examples, pool.features) for k in range(2)]


def strata_of(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the stratum of each image in folds.

    Args:
        labels: Labels of images (n, ...).

    Returns:
        The class; the rarest of several labels, or one more stratum for none; or the tenth that a number is in (n,).
    """
    kind = kind_of_labels(labels)
    if kind == "single_label":
        return np.asarray(labels, np.int64)
    if kind == "regression":
        return np.asarray(labels.argsort(kind="stable").argsort() * _TENTHS // len(labels), np.int64)
    rarest = np.where(labels > 0, labels.sum(0), np.inf).argmin(1)
    return np.asarray(np.where(labels.any(1), rarest, labels.shape[1]), np.int64)


def held_out_fold(pool: Pool) -> list[Fold]:
    """Return the fold that trains on train and predicts val."""
    val = pool.held_out
    assert val is not None
    return [Fold(np.arange(pool.num_train), np.arange(len(val)), val, pool.held_out_features)]


def run_trial(pool: Pool, job: Job, fold: Fold, checkpoint: Path, callback: Callback) -> NDArray[np.float64]:
    """Train a candidate on a fold, and predict its other images.

    Args:
        pool: The images.
        job: The job of the candidate.
        fold: The fold.
        checkpoint: File that is written after each epoch, and resumed from if it exists.
        callback: Receiver of progress.

    Returns:
        Outputs (m, classes), see `outputs_of`.
    """
    data = pool.job_data(job, select(pool.examples, fold.train))
    model, _ = train_model(job, data, callback, pool.device, checkpoint)
    return outputs_of(model, fold.examples, job, callback, "held-out images")


def outputs_of(model: TunedModel, examples: Examples, job: Job, callback: Callback, name: str) -> NDArray[np.float64]:
    """Return the outputs of a model.

    Args:
        model: The model.
        examples: The images.
        job: Its job.
        callback: Receiver of progress.
        name: Name of the images.

    Returns:
        Logits (n, classes), or predicted numbers (n, 1), in the unit of the labels.
    """
    dataset = DeviceDataset.for_model(model, examples)
    bf16, progress = job.config.training.use_bf16(dataset.device), partial(callback.on_data_progress, f"scoring {name}")
    logits = predict_logits(model, dataset, bf16=bf16, on_batch=progress)
    return in_unit_of_labels(model, np.asarray(logits.numpy(), np.float64))


def in_unit_of_labels(model: TunedModel, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a model puts out, numbers in the unit of the labels.

    Args:
        model: The model.
        logits: Its logits, or standardized numbers (n, classes).

    Returns:
        Logits as they are, or numbers (n, classes).
    """
    kind = model.label_kind
    return kind.activate(torch.from_numpy(logits)).numpy() if isinstance(kind, Regression) else logits
