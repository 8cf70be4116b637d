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

from vpt.errors import ArtifactError, SpecError, TrainingError
from vpt.methods.linear import Linear
from vpt.model.tuned_model import TunedModel
from vpt.training import distributed
from vpt.training.batches import Examples, Feed, batches, order
from vpt.training.checkpoint import load_checkpoint, save_checkpoint
from vpt.training.config import Recipe
from vpt.training.evaluation import logits_of, score
from vpt.training.feature_cache import features_of, what_must_run


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave. val_top1, val_loss: None where there is no validation set. seconds: wall time.

    train_top1, val_top1: in segmentation, pixel accuracy in training and mean IoU on val.
    """

    epoch: int
    train_loss: float
    train_top1: float
    val_loss: float | None
    val_top1: float | None
    step_size: float
    seconds: float


class Watcher:
    """Hears how training goes. Override what you want to hear."""

    def begin(self, recipe: Recipe, steps_per_epoch: int, done: Sequence[Epoch]) -> None:
        """Training begins, or goes on after the epochs in `done`."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def step(self, epoch: int, step: int, loss: float, step_size: float) -> None:
        """One iteration is done; `epoch` counts from 1, `step` from 1 within it."""

    def epoch(self, epoch: Epoch) -> None:
        """One epoch is done and its checkpoint written."""


def train(
    model: TunedModel,
    examples: Examples,
    recipe: Recipe,
    *,
    validation: Examples | None = None,
    checkpoint: Path | None = None,
    cache: Path | None = None,
    watcher: Watcher | None = None,
) -> list[Epoch]:
    """Train what `model` owns; returns one record per epoch.

    With `checkpoint`, each epoch ends by writing that file, and a file already there is gone on from: an
    interrupted run ends with the bits of an unbroken one (on the CPU). `cache`: a folder for features of the frozen
    backbone, where only the head trains.
    Raises TrainingError when the loss is NaN or infinite, with the step, the step size and advice; ArtifactError when
    the checkpoint is damaged or of another recipe or method.
    """
    watcher = watcher or Watcher()
    device = next(model.parameters()).device
    feed = Feed(examples, model.backbone.preprocessing, device)
    val_feed = (
        Feed(validation, model.backbone.preprocessing, device) if validation is not None and len(validation) else None
    )
    if recipe.probe_epochs and not (checkpoint is not None and checkpoint.exists()):
        _begin_at_probe(model, examples, recipe, cache)
    again = recipe.epochs > 1
    network = what_must_run(model, recipe, feed, val_feed, cache=cache, again=again, tell=watcher.note)
    lesson = _Classification(network, feed, val_feed, recipe, recipe.autocast_to_bf16(device))
    return fit(model, lesson, recipe, checkpoint=checkpoint, watcher=watcher)


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
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    watcher: Watcher | None = None,
) -> list[Epoch]:
    """The loop that every task shares; see `train` for checkpoints and errors."""
    watcher = watcher or Watcher()
    parameters = model.owned_parameters()
    optimizer = recipe.make_optimizer(parameters, list(model.head.parameters()))
    history: list[Epoch] = []
    if checkpoint is not None and checkpoint.exists():
        progress = load_checkpoint(checkpoint, model, optimizer)
        if progress["recipe"] != recipe.as_dict():
            raise ArtifactError(
                f"the checkpoint {checkpoint} was made with another recipe, {progress['recipe']}; go on with "
                "that one, or delete it to begin anew"
            )
        history = [Epoch(**record) for record in progress["history"]]

    steps_per_epoch = len(lesson.batches(0))
    steps = steps_per_epoch * recipe.epochs
    watcher.begin(recipe, steps_per_epoch, history)
    for epoch in range(len(history), recipe.epochs):
        started = time.perf_counter()
        model.train()
        # Dropout draws from here: a function of seed, epoch and process, so that an epoch can be done again.
        torch.manual_seed(mix(recipe.seed, epoch, distributed.rank()))
        rng = np.random.default_rng((recipe.seed, epoch, 1 + distributed.rank()))
        total_loss, hits, seen, step_size = 0.0, 0.0, 0, 0.0
        for step, indices in enumerate(lesson.batches(epoch)):
            step_size = recipe.step_size(epoch * steps_per_epoch + step, steps, steps_per_epoch)
            recipe.set_step_size(optimizer, step_size)
            loss_sum, correct = lesson.gradients(indices, rng)
            distributed.add_gradients(parameters)
            loss = distributed.add_number(loss_sum) / len(indices)
            if not math.isfinite(loss):
                raise diverged(loss, epoch, step, steps_per_epoch, step_size, recipe)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total_loss += loss * len(indices)
            hits += distributed.add_number(correct)
            seen += len(indices)
            watcher.step(epoch + 1, step + 1, loss, step_size)
        val = lesson.validate()
        history.append(
            Epoch(
                epoch=epoch + 1,
                train_loss=total_loss / seen,
                train_top1=hits / seen,
                val_loss=val[0] if val else None,
                val_top1=val[1] if val else None,
                step_size=step_size,
                seconds=time.perf_counter() - started,
            )
        )
        if checkpoint is not None and distributed.rank() == 0:
            progress = {"recipe": recipe.as_dict(), "history": [asdict(record) for record in history]}
            save_checkpoint(checkpoint, model, optimizer, progress)
        watcher.epoch(history[-1])
    model.eval()
    return history


def _begin_at_probe(model: TunedModel, examples: Examples, recipe: Recipe, cache: Path | None) -> None:
    """Give the head the weights that a linear probe of the frozen backbone ends with.

    A head that reads another feature, such as the mean of prompts, is probed on that, as it is before any training.
    """
    device, settings = next(model.parameters()).device, recipe.probe()
    probe = TunedModel(model.backbone, Linear(), model.num_classes).to(device)
    if not isinstance(model.head, nn.Linear):
        raise SpecError(f"probe_epochs trains a linear head, but {model.method} has another; leave probe_epochs at 0")
    probe.head.load_state_dict(model.head.state_dict())
    feed, bf16 = Feed(examples, model.backbone.preprocessing, device), settings.autocast_to_bf16(device)
    if model.pools_otherwise:
        feed.features = features_of(model, feed, bf16, cache).to(device)
    else:
        what_must_run(probe, settings, feed, cache=cache)
    fit(probe, _Classification(probe.head, feed, None, settings, bf16), settings)
    model.head.load_state_dict(probe.head.state_dict())


@dataclass(frozen=True)
class _Classification:
    """One label for each image; cross-entropy and top-1."""

    network: nn.Module
    feed: Feed
    val_feed: Feed | None
    recipe: Recipe
    bf16: bool

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        return list(batches(order(len(self.feed), self.recipe.seed, epoch), self.recipe.batch_size))

    def gradients(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, float]:
        loss_sum, correct = 0.0, 0
        for part in parts_of(indices, self.recipe.accumulate):
            targets = self.feed.targets(part)
            with torch.autocast(self.feed.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.network(self.feed.inputs(part, self.recipe.augment, rng))
            loss = nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
            (loss / len(indices)).backward()
            loss_sum += loss.item()
            correct += int((logits.argmax(1) == targets).sum())
        return loss_sum, correct

    def validate(self) -> tuple[float, float] | None:
        if self.val_feed is None:
            return None
        scores = score(logits_of(self.network, self.val_feed, bf16=self.bf16), self.val_feed.labels)
        return scores.loss, scores.top1


def parts_of(indices: NDArray[np.int64], accumulate: int) -> Iterator[NDArray[np.int64]]:
    """This process's share of a batch, in as many parts as gradients are to be accumulated over."""
    mine = distributed.my_part(indices)
    return batches(mine, max(1, math.ceil(len(mine) / accumulate)))


def mix(seed: int, epoch: int, rank: int) -> int:
    """What torch's generator is seeded with for an epoch: dropout is a function of seed, epoch and process alone."""
    return int(np.random.SeedSequence((seed, epoch, rank)).generate_state(1, np.uint64)[0] >> 1)


def diverged(
    loss: float, epoch: int, step: int, steps_per_epoch: int, step_size: float, recipe: Recipe
) -> TrainingError:
    """The error for a loss that is NaN or infinite; epoch and step count from 0."""
    return TrainingError(
        f"the loss became {loss} in epoch {epoch + 1}, step {step + 1} of {steps_per_epoch}, at step size "
        f"{step_size:.3g} (learning rate {recipe.learning_rate:g}); try a learning rate of "
        f"{recipe.learning_rate / 10:g}, or a longer warm-up"
    )
