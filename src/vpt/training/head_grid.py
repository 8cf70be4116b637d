"""Training of many heads on one frozen backbone at once, with different learning rates, weight decays and seeds.

Each head ends as `train` alone would train it, to rounding: same start, order of images, schedule and optimizer.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vpt.data.label_kinds import kind_of_labels
from vpt.errors import SpecError, TrainingError
from vpt.model.tuned_model import TunedModel
from vpt.training.batches import DeviceDataset, Examples, epoch_order, iter_batches
from vpt.training.callbacks import EpochMetrics
from vpt.training.config import TrainingConfig
from vpt.training.feature_cache import cache_frozen_features
from vpt.training.loop import divergence_error, epoch_seed
from vpt.training.stacked_heads import StackedHeads, StackedOptimizer
from vpt.training.task_config import TaskConfig

# Options in which the configurations of a grid may differ, and those whose values are given.
_VARIABLE_FIELDS = ("learning_rate", "weight_decay", "head_lr_scale", "seed")
_FIXED_FIELDS = {
    "augment": "none",
    "probe_epochs": 0,
    "grad_accum_steps": 1,
    "ema": 0.0,
    "patience": 0,
    "keep": "last",
    "layer_decay": 1.0,
    "block_rates": None,
    "loss": "auto",
    "class_weights": None,
    "label_smoothing": 0.0,
    "balanced_sampling": False,
    "metric": "auto",
}


@dataclass(frozen=True)
class HeadResult:
    """Result of one configuration of a grid.

    Attributes:
        head: The trained head.
        history: Metrics of each epoch, up to a diverging one; `seconds` is an even part of the grid's wall time.
        error: The error that `train` would raise, or None.
    """

    head: nn.Module
    history: list[EpochMetrics]
    error: TrainingError | None


def train_head_grid(
    model: TunedModel,
    examples: Examples,
    configs: Sequence[TaskConfig],
    *,
    validation: Examples | None = None,
    cache: Path | None = None,
) -> list[HeadResult]:
    """Train one head per configuration on the frozen features of a model, which stays as it is.

    Every head starts as `attach` initializes it after `torch.manual_seed(seed)`.

    Args:
        model: The model. Only its head trains.
        examples: Training images and labels.
        configs: The configurations. They differ in learning rate, weight decay, head_lr_scale and seed alone.
        validation: Validation images and labels. Default: none.
        cache: Folder for frozen features. Default: none.

    Returns:
        The results in the order of the configurations. `check_head_grid` states what is refused.
    """
    check_head_grid(model, configs)
    if kind_of_labels(examples.labels) != "single_label":
        raise SpecError(
            f"the labels are {kind_of_labels(examples.labels)}; heads are trained at once on one class each"
        )
    datasets = [DeviceDataset.for_model(model, batch) for batch in (examples, validation) if batch]
    cache_frozen_features(model, *datasets, bf16=configs[0].training.use_bf16(datasets[0].device), cache=cache)
    results: dict[int, HeadResult] = {}
    for groups in _group_by_seed(configs):
        trainer = _GridTrainer([[configs[i] for i in group] for group in groups], model, *datasets)
        results.update(zip(chain.from_iterable(groups), trainer.train(), strict=True))
    return [results[i] for i in range(len(configs))]


def check_head_grid(model: TunedModel, configs: Sequence[TaskConfig]) -> None:
    """Check that configurations can be trained at once.

    Args:
        model: The model.
        configs: The configurations.

    Raises:
        SpecError: More than the head trains, images are augmented, or configurations differ in other options.
    """
    if not model.only_head_trains:
        raise SpecError(f"{model.method} trains more than a head; a grid of it cannot be trained at once")
    if model.injected_modules:
        raise SpecError(
            f"{model.method} injects modules that every seed initializes differently; a grid is of heads alone"
        )
    for config in configs:
        if configs[0].replace(**{name: getattr(config.training, name) for name in _VARIABLE_FIELDS}) != config:
            names = ", ".join(_VARIABLE_FIELDS)
            raise SpecError(f"configurations that are trained at once may differ in {names} alone")
        for name, required in _FIXED_FIELDS.items():
            value = config.to_dict().get(name)
            if value != required:
                raise SpecError(f"{name} is {value!r}; heads are trained at once with {required!r}")


def _group_by_seed(configs: Sequence[TaskConfig]) -> list[list[list[int]]]:
    """Return the positions of the configurations: passes of groups of one size, each group of one seed."""
    seeds = [config.training.seed for config in configs]
    groups = [[i for i, found in enumerate(seeds) if found == seed] for seed in dict.fromkeys(seeds)]
    return [[group for group in groups if len(group) == size] for size in dict.fromkeys(map(len, groups))]


class _GridTrainer:
    """One pass: groups of one seed each, all with the same number of settings."""

    def __init__(
        self, configs: list[list[TaskConfig]], model: TunedModel, dataset: DeviceDataset, *validation: DeviceDataset
    ) -> None:
        self.configs = configs
        self.flat_configs = list(chain.from_iterable(configs))
        self.dataset, self.validation = dataset, validation
        self.base_config = configs[0][0]
        self.bf16 = self.base_config.training.use_bf16(dataset.device)
        self.head_groups = [_initial_heads(model, group) for group in configs]
        self.heads = StackedHeads(self.head_groups)

        def of_points(value: Callable[[TrainingConfig], float]) -> Tensor:
            return torch.tensor([[value(c.training) for c in group] for group in configs], device=dataset.device)

        weight_decays = of_points(lambda training: training.weight_decay)
        training, first = self.base_config.training, self.head_groups[0][0]
        decaying = training.decaying(dict(first.named_parameters()), list(first.parameters()))
        of_weights = [weight_decays * (name in decaying) for name, _ in first.named_parameters()]
        self.optimizer = StackedOptimizer(training.optimizer, self.heads.weights, of_weights)
        head_lrs = of_points(lambda training: training.learning_rate * training.head_lr_scale)
        self.lr_scales = head_lrs / self.base_config.training.learning_rate
        self.batches = list(iter_batches(np.arange(len(dataset)), self.base_config.training.batch_size))

    def train(self) -> list[HeadResult]:
        """Train all heads and return their results, group by group."""
        histories: list[list[EpochMetrics]] = [[] for _ in self.flat_configs]
        errors: list[TrainingError | None] = [None] * len(self.flat_configs)
        num_steps = len(self.batches)
        sizes = torch.tensor([len(batch) for batch in self.batches], dtype=torch.double)
        for epoch in range(self.base_config.num_epochs):
            start_time = time.perf_counter()
            losses, top1 = self._epoch(epoch)
            val_scores = self._validate() if self.base_config.validates_after(epoch) else self._no_scores
            seconds = (time.perf_counter() - start_time) / len(self.flat_configs)
            mean_losses = (sizes @ losses / len(self.dataset)).tolist()
            finite = losses.isfinite()
            all_finite = finite.all(0).tolist()
            for point, config in enumerate(self.flat_configs):
                if not all_finite[point] and errors[point] is None:
                    step = int(finite[:, point].int().argmin())
                    loss, rate = float(losses[step, point]), self._lr(config, epoch, step)
                    errors[point] = divergence_error(loss, epoch, step, num_steps, rate, config.training)
                (val_loss, val_metric), last = val_scores[point], num_steps - 1
                lr = self._lr(config, epoch, last)
                if errors[point] is None and val_loss is not None and not math.isfinite(val_loss):
                    name = "loss on val"
                    errors[point] = divergence_error(val_loss, epoch, last, num_steps, lr, config.training, name=name)
                if errors[point] is None:
                    values = (mean_losses[point], top1[point], val_loss, val_metric)
                    metrics = {"train_top1": top1[point]} | ({} if val_metric is None else {"val_top1": val_metric})
                    histories[point].append(EpochMetrics(epoch + 1, *values, lr, seconds, metrics))
        self.heads.unstack()
        heads = [head.eval() for head in chain.from_iterable(self.head_groups)]
        return [HeadResult(*point) for point in zip(heads, histories, errors, strict=True)]

    def _epoch(self, epoch: int) -> tuple[Tensor, list[float]]:
        """Train one epoch; return the loss of every step, (steps, points), and top-1 in training of every point."""
        device, n, num_settings = self.dataset.device, len(self.dataset), len(self.configs[0])
        seeds = [group[0].training.seed for group in self.configs]
        generators = [torch.Generator().manual_seed(epoch_seed(seed, epoch, 0)) for seed in seeds]
        permutations = np.stack([epoch_order(n, seed, epoch) for seed in seeds])
        labels = self.dataset.labels.to(device)
        assert self.dataset.features is not None
        features = self.dataset.features[0]
        losses, correct = [], torch.zeros(len(seeds), num_settings, device=device)
        for step, positions in enumerate(self.batches):
            indices = torch.from_numpy(permutations[:, positions]).to(device)  # (groups, batch)
            targets = labels[indices].unsqueeze(2).expand(-1, -1, num_settings)
            logits = self._logits(features[indices], generators)
            loss, gradient = _cross_entropy(logits.detach(), targets)
            lrs = self.lr_scales * self._lr(self.base_config, epoch, step)
            self.optimizer.step(torch.autograd.grad(logits, self.heads.weights, gradient), lrs)
            losses.append(loss.mean(1).flatten())
            correct += (logits.detach().argmax(-1) == targets).sum(1)
        return torch.stack(losses).cpu().double(), (correct.flatten() / n).tolist()

    @property
    def _no_scores(self) -> list[list[float | None]]:
        return [[None, None]] * len(self.flat_configs)

    @torch.no_grad()
    def _validate(self) -> list[list[float | None]]:
        """Return the mean loss and top-1 on validation images of every point; None without such images."""
        if not self.validation:
            return self._no_scores
        dataset, device = self.validation[0], self.dataset.device
        assert dataset.features is not None
        features, labels = dataset.features[0], dataset.labels.to(device)
        totals = torch.zeros(2, *self.lr_scales.shape)
        for positions in iter_batches(np.arange(len(labels)), 256):
            indices = torch.from_numpy(positions).to(device)
            logits = self._logits(features[indices].expand(len(self.configs), -1, -1), None)
            targets = labels[indices].view(1, -1, 1).expand(logits.shape[:-1])
            correct = logits.argmax(-1) == targets
            totals += torch.stack([_cross_entropy(logits, targets)[0].sum(1), correct.sum(1)]).cpu()
        return (totals.flatten(1).T / len(labels)).tolist()

    def _logits(self, features: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
        with torch.autocast(self.dataset.device.type, torch.bfloat16, enabled=self.bf16):
            return self.heads(features, generators).float()

    def _lr(self, config: TaskConfig, epoch: int, step: int) -> float:
        steps_per_epoch = len(self.batches)
        lr = config.lr_at(epoch * steps_per_epoch + step, config.num_epochs * steps_per_epoch, steps_per_epoch)
        return config.training.lr_factor(len(self.batches[0])) * lr


def _cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of each image and the gradient of every head's mean loss.

    Logits are (groups, batch, settings, classes), labels (groups, batch, settings). Computed by hand, this takes a
    third of the passes over memory that autograd takes.
    """
    log_probs = logits.log_softmax(-1)
    positions = labels.unsqueeze(-1)
    losses = -log_probs.gather(-1, positions).squeeze(-1)
    gradient = log_probs.exp_().scatter_add_(-1, positions, logits.new_full((1,), -1.0).expand(positions.shape))
    return losses, gradient.div_(logits.shape[1])


def _initial_heads(model: TunedModel, group: Sequence[TaskConfig]) -> list[nn.Module]:
    """Return equal heads for the configurations of one seed. One is drawn and copied, as seeding is slow."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(group[0].training.seed)
        head = model.new_head()
    return [copy.deepcopy(head) for _ in group]
