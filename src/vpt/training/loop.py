"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vpt.errors import SpecError, TrainingError, TunedFileError
from vpt.methods.linear import Linear
from vpt.model.tuned_model import TunedModel
from vpt.training import distributed
from vpt.training.batches import DeviceDataset, Examples, epoch_order, iter_batches
from vpt.training.callbacks import Callback
from vpt.training.checkpoint import load_checkpoint, save_checkpoint
from vpt.training.config import TrainingConfig
from vpt.training.evaluation import predict_logits, score_logits
from vpt.training.feature_cache import cache_frozen_features, compute_features
from vpt.training.history import EpochMetrics


def train(
    model: TunedModel,
    examples: Examples,
    config: TrainingConfig,
    *,
    validation: Examples | None = None,
    checkpoint: Path | None = None,
    cache: Path | None = None,
    callback: Callback | None = None,
) -> list[EpochMetrics]:
    """Train what `model` owns; returns one record per epoch.

    With `checkpoint`, each epoch ends by writing that file, and a file already there is gone on from: an
    interrupted run ends with the bits of an unbroken one (on the CPU). `cache`: a folder for features of the frozen
    backbone, where only the head trains.
    Raises TrainingError when the loss is NaN or infinite, with the step, the learning rate and advice; TunedFileError when
    the checkpoint is damaged or of another configuration or method.
    """
    callback = callback or Callback()
    device = next(model.parameters()).device
    dataset = DeviceDataset(examples, model.backbone.preprocessing, device)
    val_dataset = (
        DeviceDataset(validation, model.backbone.preprocessing, device)
        if validation is not None and len(validation)
        else None
    )
    if config.probe_epochs and not (checkpoint is not None and checkpoint.exists()):
        _init_head_from_probe(model, examples, config, cache)
    repeated = config.epochs > 1
    network = cache_frozen_features(
        model, config, dataset, val_dataset, cache=cache, repeated=repeated, on_note=callback.on_note
    )
    lesson = _Classification(network, dataset, val_dataset, config, config.use_bf16(device))
    return fit(model, lesson, config, checkpoint=checkpoint, callback=callback)


class Lesson(Protocol):
    """What differs between tasks: which examples come when, their loss, and how the result is measured."""

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """The examples of each step of an epoch, from 0: a function of nothing else, so that it can be done again."""

    def gradients(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, float]:
        """Add this process's share of a batch's gradient; gives the sums of its losses and of its hits."""

    def validate(self) -> tuple[float, float] | None:
        """Loss and figure of merit on validation examples, or None without any."""


def fit(
    model: TunedModel,
    lesson: Lesson,
    config: TrainingConfig,
    *,
    checkpoint: Path | None = None,
    callback: Callback | None = None,
) -> list[EpochMetrics]:
    """The loop that every task shares; see `train` for checkpoints and errors."""
    callback = callback or Callback()
    parameters = model.trainable_parameters()
    optimizer = config.make_optimizer(parameters, list(model.head.parameters()))
    history: list[EpochMetrics] = []
    if checkpoint is not None and checkpoint.exists():
        progress = load_checkpoint(checkpoint, model, optimizer)
        if progress["config"] != config.to_dict():
            raise TunedFileError(
                f"the checkpoint {checkpoint} was written with another configuration, {progress['config']}; go on with "
                "that one, or delete it to begin anew"
            )
        history = [EpochMetrics(**record) for record in progress["history"]]

    steps_per_epoch = len(lesson.batches(0))
    num_steps = steps_per_epoch * config.epochs
    callback.on_train_start(config, steps_per_epoch, history)
    for epoch in range(len(history), config.epochs):
        start_time = time.perf_counter()
        model.train()
        # Dropout draws from here: a function of seed, epoch and process, so that an epoch can be done again.
        torch.manual_seed(epoch_seed(config.seed, epoch, distributed.rank()))
        rng = np.random.default_rng((config.seed, epoch, 1 + distributed.rank()))
        total_loss, total_correct, num_seen, lr = 0.0, 0.0, 0, 0.0
        for step, indices in enumerate(lesson.batches(epoch)):
            lr = config.lr_at(epoch * steps_per_epoch + step, num_steps, steps_per_epoch)
            config.set_lr(optimizer, lr)
            loss_sum, correct = lesson.gradients(indices, rng)
            distributed.all_reduce_gradients(parameters)
            loss = distributed.all_reduce_sum(loss_sum) / len(indices)
            if not math.isfinite(loss):
                raise divergence_error(loss, epoch, step, steps_per_epoch, lr, config)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total_loss += loss * len(indices)
            total_correct += distributed.all_reduce_sum(correct)
            num_seen += len(indices)
            callback.on_step(epoch + 1, step + 1, loss, lr)
        val_scores = lesson.validate()
        history.append(
            EpochMetrics(
                epoch=epoch + 1,
                train_loss=total_loss / num_seen,
                train_metric=total_correct / num_seen,
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


def _init_head_from_probe(model: TunedModel, examples: Examples, config: TrainingConfig, cache: Path | None) -> None:
    """Give the head the weights that a linear probe of the frozen backbone ends with.

    A head that reads another feature, such as the mean of prompts, is probed on that, as it is before any training.
    """
    device, probe_config = next(model.parameters()).device, config.probe_config()
    probe = TunedModel(model.backbone, Linear(), model.num_classes, readout=model.readout).to(device)
    if not isinstance(model.head, nn.Linear):
        raise SpecError(f"probe_epochs trains a linear head, but {model.method} has another; leave probe_epochs at 0")
    probe.head.load_state_dict(model.head.state_dict())
    dataset, bf16 = DeviceDataset(examples, model.backbone.preprocessing, device), probe_config.use_bf16(device)
    if not model.reads_backbone_feature:
        dataset.features = compute_features(model, dataset, bf16, cache).to(device)
    else:
        cache_frozen_features(probe, probe_config, dataset, cache=cache)
    fit(probe, _Classification(probe.head, dataset, None, probe_config, bf16), probe_config)
    model.head.load_state_dict(probe.head.state_dict())


@dataclass(frozen=True)
class _Classification:
    """One label for each image; cross-entropy and top-1."""

    network: nn.Module
    dataset: DeviceDataset
    val_dataset: DeviceDataset | None
    config: TrainingConfig
    bf16: bool

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        return list(iter_batches(epoch_order(len(self.dataset), self.config.seed, epoch), self.config.batch_size))

    def gradients(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, float]:
        loss_sum, correct = 0.0, 0
        for micro_batch in micro_batches(indices, self.config.grad_accum_steps):
            targets = self.dataset.targets(micro_batch)
            with torch.autocast(self.dataset.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.network(self.dataset.inputs(micro_batch, self.config.augment, rng))
            loss = nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
            (loss / len(indices)).backward()
            loss_sum += loss.item()
            correct += int((logits.argmax(1) == targets).sum())
        return loss_sum, correct

    def validate(self) -> tuple[float, float] | None:
        if self.val_dataset is None:
            return None
        scores = score_logits(predict_logits(self.network, self.val_dataset, bf16=self.bf16), self.val_dataset.labels)
        return scores.loss, scores.top1


def micro_batches(indices: NDArray[np.int64], grad_accum_steps: int) -> Iterator[NDArray[np.int64]]:
    """This process's share of a batch, in as many parts as gradients are to be accumulated over."""
    shard = distributed.local_shard(indices)
    return iter_batches(shard, max(1, math.ceil(len(shard) / grad_accum_steps)))


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """What torch's generator is seeded with for an epoch: dropout is a function of seed, epoch and process alone."""
    return int(np.random.SeedSequence((seed, epoch, rank)).generate_state(1, np.uint64)[0] >> 1)


def divergence_error(
    loss: float, epoch: int, step: int, steps_per_epoch: int, lr: float, config: TrainingConfig
) -> TrainingError:
    """The error for a loss that is NaN or infinite; epoch and step count from 0."""
    return TrainingError(
        f"the loss became {loss} in epoch {epoch + 1}, step {step + 1} of {steps_per_epoch}, at a learning rate "
        f"of {lr:.3g} (learning_rate {config.learning_rate:g}); try learning_rate "
        f"{config.learning_rate / 10:g}, or a longer warm-up"
    )
