"""Training of classification models on images in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import WeightedRandomSampler

from vpt.errors import SpecError
from vpt.methods.linear import Linear
from vpt.model.tuned_model import TunedModel
from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.classification.labels import LabelTask, fit_label_kind, label_task
from vpt.tasks.classification.losses import Loss, balanced_weights
from vpt.tasks.classification.metrics import choose_metric, measure
from vpt.training import Callback, DeviceDataset, EpochMetrics, Examples, fit, predict_logits
from vpt.training.augmentation import parse_augmentation
from vpt.training.batches import epoch_order, iter_batches, number_draws
from vpt.training.feature_cache import cache_frozen_features, compute_features
from vpt.training.loop import epoch_seed


def train(
    model: TunedModel,
    examples: Examples,
    config: ClassificationConfig,
    *,
    validation: Examples | None = None,
    checkpoint: Path | None = None,
    cache: Path | None = None,
    callback: Callback | None = None,
) -> list[EpochMetrics]:
    """Train the trainable parameters of a classification model on labels of any kind, which it takes over.

    With a checkpoint, an interrupted run resumes from its last epoch. On the CPU its result is bit-identical to that of
    an uninterrupted run. Errors are those of `vpt.training.fit`.

    Args:
        model: The model, on its device.
        examples: Training images and labels.
        config: The configuration.
        validation: Validation images and labels. Default: none.
        checkpoint: File that is written after each epoch, and resumed from if it exists. Default: no checkpoint.
        cache: Folder for frozen features, used if only the head trains. Default: none.
        callback: Receiver of progress. Default: none.

    Returns:
        The metrics of each epoch.
    """
    callback = callback or Callback()
    model.label_kind = fit_label_kind(examples.labels)
    label_task(model.label_kind).check(config)
    if config.probe_epochs and not (checkpoint is not None and checkpoint.exists()):
        init_head_from_probe(model, examples, config, cache)
    splits = {"train": examples} if validation is None else {"train": examples, "val": validation}
    objective = make_objective(model, splits, config, cache, callback)
    return fit(model, objective, config, checkpoint=checkpoint, callback=callback)


@dataclass(frozen=True)
class ClassificationObjective:
    """Loss and metric of the labels of images.

    Attributes:
        model: The model.
        network: The module that maps the inputs of the datasets to logits, as `cache_frozen_features` returns it.
        dataset: Training images.
        val_dataset: Validation images, or None.
        config: The configuration.
        bf16: True runs the forward pass in bf16.
    """

    model: TunedModel
    network: nn.Module
    dataset: DeviceDataset
    val_dataset: DeviceDataset | None
    config: ClassificationConfig
    bf16: bool

    @cached_property
    def labels(self) -> LabelTask[Any]:
        """Label task of the model."""
        return label_task(self.model.label_kind)

    @cached_property
    def criterion(self) -> Loss:
        """Function from logits and targets to the sum of the losses of the images."""
        targets = self._targets(self.dataset.labels)
        return self.labels.make_loss(self.config, targets, self.model.num_classes)

    @cached_property
    def plain_criterion(self) -> Loss:
        """The loss without weights of classes and label smoothing, which suit training, and not a score."""
        config = self.config.replace(class_weights=None, label_smoothing=0.0)
        return self.labels.make_loss(config, self._targets(self.dataset.labels), self.model.num_classes)

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:  # noqa: D102
        training = self.config.training
        order = epoch_order(len(self.dataset), training.seed, epoch)
        if self.config.balanced_sampling:
            order = balanced_order(self.dataset.labels, epoch_seed(training.seed, epoch, 0))
            order = number_draws(order, len(self.dataset))
        return list(iter_batches(order, training.batch_size))

    def plan(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> None:  # noqa: D102
        is_augmented = self.config.augment != "none"
        self.dataset.plan(batches, (self.config.training.seed, epoch) if is_augmented else None)

    def loss(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, float]:  # noqa: D102
        targets = self._targets(self.dataset.targets(indices))
        inputs = self.dataset.inputs(indices, self.config.augment, rng)
        mixing = parse_augmentation(self.config.augment).mixing
        inputs, own_weight = (inputs, 1.0) if mixing is None else mixing(inputs, rng)
        with torch.autocast(self.dataset.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.network(inputs)
        loss, metric = self._score(logits, targets)
        if own_weight == 1:
            return loss, metric
        other_loss, other_metric = self._score(logits, targets.flip(0))
        loss = own_weight * loss + (1 - own_weight) * other_loss
        return loss, own_weight * metric + (1 - own_weight) * other_metric

    def _targets(self, labels: Tensor) -> Tensor:
        """Return labels as the model learns them, on its device."""
        return self.labels.targets(labels).to(self.dataset.device)

    def _score(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Return the sums of the losses and of the metric of a batch."""
        return self.criterion(logits.float(), targets), self.labels.train_metric(logits, targets)

    @property
    def metric(self) -> str:  # noqa: D102
        return self.labels.trained_metric

    @property
    def has_val(self) -> bool:  # noqa: D102
        return self.val_dataset is not None

    def validate(self) -> tuple[float, dict[str, float]] | None:  # noqa: D102
        if self.val_dataset is None:
            return None
        logits = predict_logits(self.network, self.val_dataset, bf16=self.bf16)
        scores = self.labels.score(logits, self.val_dataset.labels)
        logits, targets = logits.to(self.dataset.device), self._targets(self.val_dataset.labels)
        chosen = choose_metric(self.labels.kind.name, self.config.metric)
        metrics = {chosen: measure(scores, chosen)}
        if self.metric in scores.metrics:  # R² is that of these labels, and not of standardized ones
            metrics[self.metric] = scores.metrics[self.metric]
        elif self.metric not in metrics:
            metrics[self.metric] = self.labels.train_metric(logits, targets) / len(targets)
        if self.config.loss in ("auto", self.labels.losses[0]):
            return scores.loss, metrics
        return float(self.plain_criterion(logits, targets)) / len(targets), metrics


def balanced_order(labels: Tensor, seed: int) -> NDArray[np.int64]:
    """Draw images with replacement, each class as often, as torch's `WeightedRandomSampler` does.

    Args:
        labels: Classes, int64 (n,).
        seed: Seed of the draws.

    Returns:
        Indices of images (n,).
    """
    weights = balanced_weights(labels.bincount())[labels].tolist()
    sampler = WeightedRandomSampler(weights, len(labels), generator=torch.Generator().manual_seed(seed))
    return np.fromiter(sampler, np.int64, len(labels))


def make_objective(
    model: TunedModel,
    splits: Mapping[str, Examples],
    config: ClassificationConfig,
    cache: Path | None,
    callback: Callback,
) -> ClassificationObjective:
    """Return the objective, after the computation of frozen features.

    Args:
        model: The model, on its device.
        splits: Images and labels of "train" and, possibly, "val".
        config: The configuration.
        cache: Folder for frozen features, or None.
        callback: Receiver of notes.

    Returns:
        The objective.
    """
    dataset = DeviceDataset.for_model(model, splits["train"])
    val_dataset = DeviceDataset.for_model(model, splits["val"]) if splits.get("val") else None
    bf16 = config.training.use_bf16(dataset.device)
    network = cache_frozen_features(
        model, dataset, val_dataset, augment=config.augment, bf16=bf16, cache=cache, repeated=config.epochs > 1,
        on_note=callback.on_note,
    )  # fmt: skip
    return ClassificationObjective(model, network, dataset, val_dataset, config, bf16)


def init_head_from_probe(
    model: TunedModel, examples: Examples, config: ClassificationConfig, cache: Path | None
) -> None:
    """Give the head the final weights of a linear probe of the frozen backbone.

    A head that reads another feature, such as the mean of prompts, is probed on that, as it is before any training.

    Args:
        model: The model, on its device.
        examples: Training images and labels.
        config: The configuration.
        cache: Folder for frozen features, or None.

    Raises:
        SpecError: The head is not linear.
    """
    if not isinstance(model.head, nn.Linear):
        raise SpecError(f"probe_epochs trains a linear head, but {model.method} has another; leave probe_epochs at 0")
    dataset, probe_config = DeviceDataset.for_model(model, examples), config.probe_config()
    bf16 = probe_config.training.use_bf16(dataset.device)
    probe = TunedModel(model.backbone, Linear(), model.num_classes, readout=model.readout).to(dataset.device)
    probe.label_kind = model.label_kind
    probe.head.load_state_dict(model.head.state_dict())
    if not model.reads_backbone_feature:
        dataset.features = compute_features(model, dataset, bf16, cache)
    else:
        cache_frozen_features(probe, dataset, augment=probe_config.augment, bf16=bf16, cache=cache)
    fit(probe, ClassificationObjective(probe, probe.head, dataset, None, probe_config, bf16), probe_config)
    model.head.load_state_dict(probe.head.state_dict())
