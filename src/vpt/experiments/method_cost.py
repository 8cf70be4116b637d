"""The measured cost of a method: a few steps on random images on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpt.backbones.backbone import Backbone
from vpt.model.attach import attach
from vpt.model.tuned_model import TunedModel
from vpt.tasks.classification import ClassificationConfig, train
from vpt.tasks.registry import TASKS
from vpt.tasks.segmentation.objective import cross_entropy
from vpt.training import DeviceDataset, Examples, TaskConfig, distributed, predict_logits
from vpt.training.feature_cache import NUM_VIEWS

MAX_TIMED_IMAGES = 32  # at most, in the step that is timed


@dataclass(frozen=True)
class MethodCost:
    """The measured cost of a method.

    Attributes:
        train_seconds: Time of a training step per image; of the head alone with `cached_features`.
        forward_seconds: Time of a forward pass per image.
        file_bytes: Size of a tuned file.
        cached_features: Only the head trains, so that the forward pass runs once per image for all runs.
        feature_bytes: Size of a cached feature.
        views_per_image: Number of forward passes per training image with `cached_features`: one for each random crop.
    """

    train_seconds: float
    forward_seconds: float
    file_bytes: int
    cached_features: bool = False
    feature_bytes: int = 0
    views_per_image: int = 1


def measure_cost(
    backbone: Backbone, spec: str, config: TaskConfig, classes: int, head: str | None, **options: Any
) -> MethodCost:
    """Return the cost of a method.

    Args:
        backbone: The backbone.
        spec: Text of the method.
        config: Training configuration.
        classes: Number of classes.
        head: Text of the head; None takes the default of the task.
        **options: Options of `attach`.

    Returns:
        The cost of the method.
    """
    device, readout = distributed.resolve_device(), TASKS[config.task].make_readout(head, backbone)
    model = attach(backbone, spec, classes, head=readout, **options).to(device)
    if isinstance(config, ClassificationConfig):
        return _measure_classification(model, config, classes, device)
    size = backbone.preprocessing.size
    crops, masks = torch.rand(2, 3, size, size).to(device), torch.zeros(2, size, size, dtype=torch.long).to(device)

    def step() -> None:
        cross_entropy(model.logits_with_auxiliary(crops)[0], masks).backward()

    def forward() -> None:
        with torch.inference_mode():
            model(crops)

    train_seconds, forward_seconds = (_time_second_call(work) / len(crops) for work in (step, forward))
    return MethodCost(train_seconds, forward_seconds, _num_bytes(model.inference_state_dict()))


def _measure_classification(
    model: TunedModel, config: ClassificationConfig, classes: int, device: torch.device
) -> MethodCost:
    config = config.replace(epochs=3, warmup_epochs=0, probe_epochs=0, learning_rate=1e-6)
    count, size = min(config.training.batch_size, MAX_TIMED_IMAGES), model.backbone.preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), np.uint8)
    examples = Examples(pixels, np.arange(count, dtype=np.int64) % classes)
    dataset = DeviceDataset(examples, model.backbone.preprocessing, device)
    forward_seconds = _time_second_call(lambda: predict_logits(model, dataset)) / count
    return MethodCost(
        min(epoch.seconds for epoch in train(model, examples, config)[1:]) / count,
        forward_seconds,
        _num_bytes(model.trainable_state_dict()),
        cached_features=model.only_head_trains and config.augment in ("none", "random_resized_crop"),
        feature_bytes=4 * model.width,
        views_per_image=1 + NUM_VIEWS * (config.augment == "random_resized_crop"),
    )


def _time_second_call(work: Callable[[], object]) -> float:
    """Return the time of a call in seconds; another call before it warms up."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _num_bytes(state: dict[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())
