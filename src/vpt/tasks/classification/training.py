"""Training of classification models on images in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vpt.errors import SpecError
from vpt.methods.linear import Linear
from vpt.model.tuned_model import TunedModel
from vpt.tasks.classification.config import ClassificationConfig
from vpt.training import Callback, DeviceDataset, EpochMetrics, Examples, fit, micro_batches
from vpt.training.batches import epoch_order, iter_batches
from vpt.training.evaluation import predict_logits, score_logits
from vpt.training.feature_cache import cache_frozen_features, compute_features
from vpt.training.loop import backward


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
    """Train the trainable parameters of a classification model.

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
    resumed = checkpoint is not None and checkpoint.exists()
    objective = make_objective(
        model, examples, config, validation=validation, cache=cache, callback=callback, resumed=resumed
    )
    return fit(model, objective, config, checkpoint=checkpoint, callback=callback)


def make_objective(
    model: TunedModel,
    examples: Examples,
    config: ClassificationConfig,
    *,
    validation: Examples | None,
    cache: Path | None,
    callback: Callback,
    resumed: bool,
) -> ClassificationObjective:
    """Return the objective, after a linear probe of the head and the computation of frozen features.

    Args:
        model: The model, on its device.
        examples: Training images and labels.
        config: The configuration.
        validation: Validation images and labels, or None.
        cache: Folder for frozen features, or None.
        callback: Receiver of notes.
        resumed: True if a checkpoint replaces the initial weights, so that no probe is needed.

    Returns:
        The objective.
    """
    device, preprocessing = next(model.parameters()).device, model.backbone.preprocessing
    dataset = DeviceDataset(examples, preprocessing, device)
    val_dataset = (
        DeviceDataset(validation, preprocessing, device) if validation is not None and len(validation) else None
    )
    if config.probe_epochs and not resumed:
        _init_head_from_probe(model, examples, config, cache)
    bf16 = config.training.use_bf16(device)
    network = cache_frozen_features(
        model, dataset, val_dataset, augment=config.augment, bf16=bf16, cache=cache, repeated=config.epochs > 1,
        on_note=callback.on_note,
    )  # fmt: skip
    return ClassificationObjective(model, network, dataset, val_dataset, config, bf16)


@dataclass(frozen=True)
class ClassificationObjective:
    """Cross-entropy and top-1 accuracy of one label for each image.

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

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:  # noqa: D102
        training = self.config.training
        return list(iter_batches(epoch_order(len(self.dataset), training.seed, epoch), training.batch_size))

    def gradients(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, float]:  # noqa: D102
        loss_sum, correct = 0.0, 0
        for micro_batch in micro_batches(indices, self.config.training.grad_accum_steps):
            targets = self.dataset.targets(micro_batch)
            with torch.autocast(self.dataset.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.network(self.dataset.inputs(micro_batch, self.config.augment, rng))
            loss = nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
            loss_sum += backward(self.model, loss, len(micro_batch), len(indices))
            correct += int((logits.argmax(1) == targets).sum())
        return loss_sum, correct

    def validate(self) -> tuple[float, float] | None:  # noqa: D102
        if self.val_dataset is None:
            return None
        scores = score_logits(predict_logits(self.network, self.val_dataset, bf16=self.bf16), self.val_dataset.labels)
        return scores.loss, scores.top1


def _init_head_from_probe(
    model: TunedModel, examples: Examples, config: ClassificationConfig, cache: Path | None
) -> None:
    """Give the head the final weights of a linear probe of the frozen backbone.

    A head that reads another feature, such as the mean of prompts, is probed on that, as it is before any training.
    """
    device, probe_config = next(model.parameters()).device, config.probe_config()
    probe = TunedModel(model.backbone, Linear(), model.num_classes, readout=model.readout).to(device)
    if not isinstance(model.head, nn.Linear):
        raise SpecError(f"probe_epochs trains a linear head, but {model.method} has another; leave probe_epochs at 0")
    probe.head.load_state_dict(model.head.state_dict())
    dataset, bf16 = (
        DeviceDataset(examples, model.backbone.preprocessing, device),
        probe_config.training.use_bf16(device),
    )
    if not model.reads_backbone_feature:
        dataset.features = compute_features(model, dataset, bf16, cache).to(device)
    else:
        cache_frozen_features(probe, dataset, augment=probe_config.augment, bf16=bf16, cache=cache)
    fit(probe, ClassificationObjective(probe, probe.head, dataset, None, probe_config, bf16), probe_config)
    model.head.load_state_dict(probe.head.state_dict())
