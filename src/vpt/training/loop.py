"""The training loop that every task shares."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpt.errors import TrainingError, TunedFileError
from vpt.model.tuned_model import TunedModel
from vpt.training import distributed
from vpt.training.batches import iter_batches
from vpt.training.callbacks import Callback
from vpt.training.checkpoint import load_checkpoint, save_checkpoint
from vpt.training.config import TaskConfig
from vpt.training.history import EpochMetrics


class Objective(Protocol):
    """The task that a model is trained for: its batches, its loss, and its validation."""

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Return the batches of an epoch. They depend on the seed and the epoch alone.

        Args:
            epoch: Number of the epoch, from 0.

        Returns:
            The indices of the examples of each step.
        """

    def gradients(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, float]:
        """Add the gradient of this process's shard of a batch to the parameters.

        Args:
            indices: Indices of the examples of the whole batch.
            rng: Random generator of augmentation.

        Returns:
            The sum of the losses, and the sum of the training metric, over the shard.
        """

    def validate(self) -> tuple[float, float] | None:
        """Return the loss and the metric on validation examples, or None without any."""


def fit(
    model: TunedModel,
    objective: Objective,
    config: TaskConfig,
    *,
    checkpoint: Path | None = None,
    callback: Callback | None = None,
) -> list[EpochMetrics]:
    """Train the trainable parameters of a model.

    With a checkpoint, an interrupted run resumes from its last epoch. On the CPU its result is bit-identical to that of
    an uninterrupted run.

    Args:
        model: The model, on its device.
        objective: The objective.
        config: The configuration.
        checkpoint: File that is written after each epoch, and resumed from if it exists. Default: no checkpoint.
        callback: Receiver of progress. Default: none.

    Returns:
        The metrics of each epoch.

    Raises:
        TrainingError: The loss is NaN or infinite.
        TunedFileError: The checkpoint is damaged, or of another configuration or method.
    """
    callback = callback or Callback()
    training, parameters = config.training, model.trainable_parameters()
    optimizer = training.make_optimizer(parameters, list(model.head.parameters()))
    history: list[EpochMetrics] = []
    if checkpoint is not None and checkpoint.exists():
        progress = load_checkpoint(checkpoint, model, optimizer)
        if progress["config"] != config.to_dict():
            raise TunedFileError(
                f"the checkpoint {checkpoint} was written with another configuration, {progress['config']}; go on with "
                "that one, or delete it to begin anew"
            )
        history = [EpochMetrics(**record) for record in progress["history"]]

    steps_per_epoch = len(objective.batches(0))
    num_steps = steps_per_epoch * config.num_epochs
    callback.on_train_start(config, steps_per_epoch, history)
    for epoch in range(len(history), config.num_epochs):
        start_time = time.perf_counter()
        model.train()
        # Dropout draws from here: a function of seed, epoch and process, so that an epoch can be repeated.
        torch.manual_seed(epoch_seed(training.seed, epoch, distributed.rank()))
        rng = np.random.default_rng((training.seed, epoch, 1 + distributed.rank()))
        total_loss, total_metric, num_seen, lr = 0.0, 0.0, 0, 0.0
        for step, indices in enumerate(objective.batches(epoch)):
            lr = config.lr_at(epoch * steps_per_epoch + step, num_steps, steps_per_epoch)
            training.set_lr(optimizer, lr)
            loss_sum, metric_sum = objective.gradients(indices, rng)
            distributed.all_reduce_gradients(parameters)
            loss = distributed.all_reduce_sum(loss_sum) / len(indices)
            if not math.isfinite(loss):
                raise TrainingError(divergence_message(loss, epoch, step, steps_per_epoch, lr, training.learning_rate))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total_loss += loss * len(indices)
            total_metric += distributed.all_reduce_sum(metric_sum)
            num_seen += len(indices)
            callback.on_step(epoch + 1, step + 1, loss, lr)
        val_scores = objective.validate()
        history.append(
            EpochMetrics(
                epoch=epoch + 1,
                train_loss=total_loss / num_seen,
                train_metric=total_metric / num_seen,
                val_loss=val_scores[0] if val_scores else None,
                val_metric=val_scores[1] if val_scores else None,
                lr=lr,
                seconds=time.perf_counter() - start_time,
            )
        )
        if checkpoint is not None and distributed.rank() == 0:
            progress = {"config": config.to_dict(), "history": [asdict(record) for record in history]}
            save_checkpoint(checkpoint, model, optimizer, progress)
        callback.on_epoch(history[-1])
    model.eval()
    return history


def backward(model: TunedModel, loss_sum: Tensor, count: int, batch_size: int) -> float:
    """Add the gradient of a micro-batch, and the same share of the gradient of the method's penalty.

    Over the micro-batches of all processes the penalty is added once to the mean loss of a batch.

    Args:
        model: The model.
        loss_sum: Sum of the losses of the micro-batch.
        count: Number of images of the micro-batch.
        batch_size: Number of images of the whole batch.

    Returns:
        The sum of the losses, penalty included.
    """
    penalty = model.penalty()
    if penalty is not None:
        loss_sum = loss_sum + penalty * count
    (loss_sum / batch_size).backward()
    return loss_sum.item()


def micro_batches(indices: NDArray[np.int64], grad_accum_steps: int) -> Iterator[NDArray[np.int64]]:
    """Split this process's shard of a batch into micro-batches.

    Args:
        indices: Indices of the examples of the whole batch.
        grad_accum_steps: Number of micro-batches.

    Returns:
        The indices of each micro-batch.
    """
    shard = distributed.local_shard(indices)
    return iter_batches(shard, max(1, math.ceil(len(shard) / grad_accum_steps)))


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Return the seed of torch's generator for an epoch.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        rank: Rank of the process.

    Returns:
        A number of 63 bits.
    """
    return int(np.random.SeedSequence((seed, epoch, rank)).generate_state(1, np.uint64)[0] >> 1)


def divergence_message(
    loss: float, epoch: int, step: int, steps_per_epoch: int, lr: float, learning_rate: float
) -> str:
    """Return the message for a loss that is NaN or infinite.

    Args:
        loss: The loss.
        epoch: Number of the epoch, from 0.
        step: Number of the step within the epoch, from 0.
        steps_per_epoch: Number of steps of an epoch.
        lr: Learning rate of the step.
        learning_rate: The configured learning rate.

    Returns:
        The message, with advice.
    """
    return (
        f"the loss became {loss} in epoch {epoch + 1}, step {step + 1} of {steps_per_epoch}, at a learning rate "
        f"of {lr:.3g} (learning_rate {learning_rate:g}); try learning_rate {learning_rate / 10:g}, or a longer warm-up"
    )
