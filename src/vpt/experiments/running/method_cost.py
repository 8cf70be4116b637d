"""The measured cost of a method: a few steps on random images on this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vpt.backbones.backbone import Backbone
from vpt.methods.registry import parse_method
from vpt.model.attach import attach
from vpt.model.tuned_model import TunedModel
from vpt.tasks.classification import ClassificationConfig, train
from vpt.tasks.registry import TASKS
from vpt.tasks.segmentation.objective import cross_entropy
from vpt.training import DeviceDataset, Examples, TaskConfig, distributed, predict_logits
from vpt.training.feature_cache import NUM_VIEWS

_MAX_TIMED_IMAGES = {"cpu": 8}  # device -> images at most in the step that is timed; other devices take 64


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
    backbone: Backbone,
    spec: str,
    config: TaskConfig,
    classes: int,
    head: str | None,
    images_per_second: float | None = None,
    **options: Any,
) -> MethodCost:
    """Return the cost of a method.

    Args:
        backbone: The backbone.
        spec: Text of the method.
        config: Training configuration.
        classes: Number of classes.
        head: Text of the head; None takes the default of the task.
        images_per_second: Training rate, of which a forward pass takes a third; None times both.
        **options: Options of `attach`.

    Returns:
        The cost of the method.
    """
    method, readout = parse_method(spec).without_initial_weights(), TASKS[config.task].make_readout(head, backbone)
    model = attach(backbone, method, classes, head=readout, **options)
    augment, is_dense = config.augment, model.is_dense
    cached = not is_dense and model.only_head_trains and augment in ("none", "random_resized_crop")
    if images_per_second is not None:
        train_seconds, forward_seconds = (0.0 if cached else 1 / images_per_second), 1 / images_per_second / 3
    elif isinstance(config, ClassificationConfig):
        train_seconds, forward_seconds = _time_classification(model, config, classes)
    else:
        train_seconds, forward_seconds = _time_segmentation(model)
    state = model.inference_state_dict() if is_dense else model.trainable_state_dict()
    return MethodCost(
        train_seconds,
        forward_seconds,
        sum(tensor.nbytes for tensor in state.values()),
        cached_features=cached,
        feature_bytes=4 * model.width,
        views_per_image=1 + NUM_VIEWS * (augment == "random_resized_crop"),
    )


def _time_segmentation(model: TunedModel) -> tuple[float, float]:
    """Return the time of a training step and of a forward pass per image."""
    device, size = distributed.resolve_device(), model.backbone.preprocessing.size
    model.to(device)
    crops, masks = torch.rand(2, 3, size, size).to(device), torch.zeros(2, size, size, dtype=torch.long).to(device)

    def step() -> None:
        cross_entropy(model.logits_with_auxiliary(crops)[0], masks).backward()

    def forward() -> None:
        with torch.inference_mode():
            model(crops)

    return _time_second_call(step) / len(crops), _time_second_call(forward) / len(crops)


def _time_classification(model: TunedModel, config: ClassificationConfig, classes: int) -> tuple[float, float]:
    """Return the time of a training step, of the head alone with cached features, and of a forward pass per image."""
    device, size = distributed.resolve_device(), model.backbone.preprocessing.size
    config = config.replace(epochs=3, warmup_epochs=0, probe_epochs=0, learning_rate=1e-6, patience=0, keep="last")
    count = min(config.training.batch_size, _MAX_TIMED_IMAGES.get(device.type, 64))
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), np.uint8)
    examples = Examples(pixels, np.arange(count, dtype=np.int64) % classes)
    dataset = DeviceDataset(examples, model.to(device).backbone.preprocessing, device)
    forward_seconds = _time_second_call(lambda: predict_logits(model, dataset)) / count
    return min(epoch.seconds for epoch in train(model, examples, config)[1:]) / count, forward_seconds


def _time_second_call(work: Callable[[], object]) -> float:
    """Return the time of a call in seconds; another call before it warms up."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
