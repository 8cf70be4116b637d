"""Grids in one pass: heads on one frozen backbone, with different step sizes, weight decays and seeds, trained at once.

Each ends where `train` alone would take it, to rounding: the same start, order of images, schedule and optimizer.
"""

from __future__ import annotations

import copy
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vpt.errors import SpecError, TrainingError
from vpt.model.tuned_model import TunedModel
from vpt.training.batches import Examples, Feed, batches, order
from vpt.training.config import Recipe
from vpt.training.feature_cache import what_must_run
from vpt.training.loop import Epoch, diverged, mix
from vpt.training.optimizers import OPTIMIZERS
from vpt.training.stacked_heads import Heads

_OWN = ("learning_rate", "weight_decay", "head_rate", "seed")  # what the recipes of a grid may differ in
_ALIKE = {"augment": "none", "probe_epochs": 0, "accumulate": 1}  # and what they must be


@dataclass(frozen=True)
class Trained:
    """One point of a grid: its head, one record per epoch, and the error that `train` would have raised, or None.

    history: `seconds` is the wall time of the whole grid's epoch, shared out evenly. It ends where the loss did.
    """

    head: nn.Module
    history: list[Epoch]
    error: TrainingError | None


def train_grid(
    model: TunedModel,
    examples: Examples,
    recipes: Sequence[Recipe],
    *,
    validation: Examples | None = None,
    cache: Path | None = None,
) -> list[Trained]:
    """Train one head per recipe on the frozen features of `model`, which stays as it is; in the order of `recipes`.

    Every head begins as `attach` draws it after `torch.manual_seed(recipe.seed)`. cache: a folder for the features.
    Raises SpecError where more than the head trains, where images are augmented, or where recipes differ in more than
    learning rate, weight decay, head rate and seed.
    """
    check_grid(model, recipes)
    device = next(model.parameters()).device
    feeds = [Feed(part, model.backbone.preprocessing, device) for part in (examples, validation) if part]
    what_must_run(model, recipes[0], *feeds, cache=cache)
    found: dict[int, Trained] = {}
    for groups in _rectangles(recipes):
        rectangle = _Rectangle([[recipes[i] for i in group] for group in groups], model, *feeds)
        found.update(zip((i for group in groups for i in group), rectangle.train(), strict=True))
    return [found[i] for i in range(len(recipes))]


def check_grid(model: TunedModel, recipes: Sequence[Recipe]) -> None:
    """Raise SpecError where these recipes cannot be trained at once."""
    if not model.only_head_trains:
        raise SpecError(f"{model.method} trains more than a head; a grid of it cannot be trained at once")
    if model.hangs_at:
        raise SpecError(f"{model.method} hangs something that every seed draws anew; a grid is of heads alone")
    for recipe in recipes:
        if replace(recipes[0], **{name: getattr(recipe, name) for name in _OWN}) != recipe:
            raise SpecError(f"recipes that are trained at once may differ in {', '.join(_OWN)} alone")
        for name, wanted in _ALIKE.items():
            if getattr(recipe, name) != wanted:
                raise SpecError(f"{name} is {getattr(recipe, name)!r}; heads are trained at once with {wanted!r}")


def _rectangles(recipes: Sequence[Recipe]) -> list[list[list[int]]]:
    """Positions of the recipes as groups of one seed each; what is trained at once has groups of one size."""
    by_seed: defaultdict[int, list[int]] = defaultdict(list)
    for position, recipe in enumerate(recipes):
        by_seed[recipe.seed].append(position)
    by_size: defaultdict[int, list[list[int]]] = defaultdict(list)
    for group in by_seed.values():
        by_size[len(group)].append(group)
    return list(by_size.values())


class _Rectangle:
    """Groups of one seed each, all with the same number of settings."""

    def __init__(
        self, recipes: list[list[Recipe]], model: TunedModel, feed: Feed, val_feed: Feed | None = None
    ) -> None:
        self.recipes = recipes
        self.feed, self.val_feed = feed, val_feed
        self.first = recipes[0][0]
        self.bf16 = self.first.autocast_to_bf16(feed.device)
        self.modules = [_begun(model, group) for group in recipes]
        self.heads = Heads(self.modules)
        decays = torch.tensor([[recipe.weight_decay for recipe in group] for group in recipes], device=feed.device)
        self.optimizer = OPTIMIZERS[self.first.optimizer](self.heads.weights, decays)
        rates = [[recipe.learning_rate * recipe.head_rate for recipe in group] for group in recipes]
        self.rates = torch.tensor(rates, device=feed.device) / self.first.learning_rate
        self.steps_per_epoch = math.ceil(len(feed) / self.first.batch_size)

    def train(self) -> list[Trained]:
        """Group by group, in one row."""
        flat = [recipe for group in self.recipes for recipe in group]
        histories: list[list[Epoch]] = [[] for _ in flat]
        errors: list[TrainingError | None] = [None] * len(flat)
        for epoch in range(self.first.epochs):
            began = time.perf_counter()
            losses, top1 = self._epoch(epoch)
            val_loss, val_top1 = self._validate()
            seconds = (time.perf_counter() - began) / len(flat)
            sizes = torch.tensor([len(part) for part in batches(np.arange(len(self.feed)), self.first.batch_size)])
            mean = ((losses * sizes.unsqueeze(1)).sum(0) / len(self.feed)).tolist()
            finite = losses.isfinite()
            sound = finite.all(0).tolist()
            for point, recipe in enumerate(flat):
                if not sound[point] and errors[point] is None:
                    step = int(finite[:, point].int().argmin())
                    loss, size = float(losses[step, point]), self._step_size(recipe, epoch, step)
                    errors[point] = diverged(loss, epoch, step, self.steps_per_epoch, size, recipe)
                if errors[point] is None:
                    size = self._step_size(recipe, epoch, self.steps_per_epoch - 1)
                    figures = (mean[point], top1[point], val_loss[point], val_top1[point])
                    histories[point].append(Epoch(epoch + 1, *figures, size, seconds))
        self.heads.unstack()
        row = [head.eval() for group in self.modules for head in group]
        return [Trained(*point) for point in zip(row, histories, errors, strict=True)]

    def _epoch(self, epoch: int) -> tuple[Tensor, list[float]]:
        """The loss of every step, (steps, points), and top-1 on the training images of every point."""
        device, n, settings = self.feed.device, len(self.feed), len(self.recipes[0])
        seeds = [group[0].seed for group in self.recipes]
        generators = [torch.Generator().manual_seed(mix(seed, epoch, 0)) for seed in seeds]
        orders = np.stack([order(n, seed, epoch) for seed in seeds])
        features, labels = self.feed.features, self.feed.labels.to(device)
        assert features is not None
        losses, hits = [], torch.zeros(len(seeds), settings, device=device)
        for step, places in enumerate(batches(np.arange(n), self.first.batch_size)):
            chosen = torch.from_numpy(orders[:, places]).to(device)  # (groups, batch)
            wanted = labels[chosen].unsqueeze(2).expand(-1, -1, settings)
            logits = self._logits(features[chosen], generators)
            loss, gradient = _cross_entropy(logits.detach(), wanted)
            step_sizes = self.rates * self._step_size(self.first, epoch, step)
            self.optimizer.step(torch.autograd.grad(logits, self.heads.weights, gradient), step_sizes)
            losses.append(loss.mean(1).flatten())
            hits += (logits.detach().argmax(-1) == wanted).sum(1)
        return torch.stack(losses).double().cpu(), (hits.flatten() / n).tolist()

    @torch.no_grad()
    def _validate(self) -> tuple[list[float | None], list[float | None]]:
        """Mean loss and top-1 on the validation images of every point; None where there are none."""
        if self.val_feed is None:
            return [None] * self.rates.numel(), [None] * self.rates.numel()
        features, labels = self.val_feed.features, self.val_feed.labels.to(self.feed.device)
        assert features is not None
        losses, hits = torch.zeros(self.rates.shape), torch.zeros(self.rates.shape)
        for places in batches(np.arange(len(labels)), 256):
            chosen = torch.from_numpy(places).to(self.feed.device)
            logits = self._logits(features[chosen].expand(len(self.recipes), -1, -1), None)
            wanted = labels[chosen].view(1, -1, 1).expand(logits.shape[:-1])
            losses += _cross_entropy(logits, wanted)[0].sum(1).cpu()
            hits += (logits.argmax(-1) == wanted).sum(1).cpu()
        return (losses.flatten() / len(labels)).tolist(), (hits.flatten() / len(labels)).tolist()

    def _logits(self, features: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
        with torch.autocast(self.feed.device.type, torch.bfloat16, enabled=self.bf16):
            return self.heads(features, generators).float()

    def _step_size(self, recipe: Recipe, epoch: int, step: int) -> float:
        steps = self.steps_per_epoch * recipe.epochs
        return recipe.step_size(epoch * self.steps_per_epoch + step, steps, self.steps_per_epoch)


def _cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """logits (groups, batch, settings, classes), labels without the classes -> the loss of each image, and the
    gradient of every head's mean loss. By hand, for a third of the passes over memory that autograd would take.
    """
    log_shares = logits.log_softmax(-1)
    places = labels.unsqueeze(-1)
    losses = -log_shares.gather(-1, places).squeeze(-1)
    gradient = log_shares.exp_().scatter_add_(-1, places, logits.new_full((1,), -1.0).expand(places.shape))
    return losses, gradient.div_(logits.shape[1])


def _begun(model: TunedModel, group: Sequence[Recipe]) -> list[nn.Module]:
    """A head for each recipe of one seed: the same one. Drawn once, as seeding is slow beside a copy."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(group[0].seed)
        head = model.new_head()
    return [copy.deepcopy(head) for _ in group]
