"""The estimated cost of an experiment: a few steps of each method are timed on this machine, and multiplied.

Heads that train at once are counted as if one by one, and take less.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from vpt.backbones import load_backbone
from vpt.backbones.backbone import Backbone
from vpt.experiments.design import MethodRow, SegmentationOptions, Task
from vpt.experiments.experiment import Experiment
from vpt.experiments.search import remaining_runs
from vpt.experiments.segmentation_tasks import measure_step
from vpt.model.attach import attach
from vpt.tasks.classification import ClassificationConfig, train
from vpt.tasks.classification.task import ClassificationTask
from vpt.tasks.segmentation.config import SegmentationConfig
from vpt.training import DeviceDataset, Examples, TaskConfig, distributed, predict_logits
from vpt.training.feature_cache import NUM_VIEWS

MAX_TIMED_IMAGES = 32  # at most, in the step that is timed
RECORD_BYTES = 3000  # of a record without its epochs
EPOCH_BYTES = 250


@dataclass(frozen=True)
class MethodCost:
    """The measured cost of a method.

    Attributes:
        train_seconds: Time of a training step per image; of the head alone with `cached_features`.
        forward_seconds: Time of a forward pass per image.
        cached_features: Only the head trains, so that the forward pass runs once per image for all runs.
        file_bytes: Size of a tuned file.
        feature_bytes: Size of a cached feature.
        views_per_image: Number of forward passes per training image with `cached_features`: one for each random crop.
    """

    train_seconds: float
    forward_seconds: float
    cached_features: bool
    file_bytes: int
    feature_bytes: int
    views_per_image: int = 1


MethodCosts = list[tuple[MethodCost, TaskConfig]]  # of each setting of a method


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of all runs, one after the other on this machine, without reading the images.

    Attributes:
        runs: Number of runs.
        seconds: Row -> time of its runs.
        disk_bytes: Size of records, tuned files and cached features.
    """

    runs: int
    seconds: dict[str, float]
    disk_bytes: int

    @property
    def total_seconds(self) -> float:
        """Time of all runs."""
        return sum(self.seconds.values())


def estimate_cost(experiment: Experiment) -> Estimate:
    """Return the estimated cost of an experiment; each method is timed on its backbone with random images.

    Args:
        experiment: The experiment.

    Returns:
        The estimated cost of an experiment.
    """
    device = distributed.resolve_device()
    load = cache(load_backbone)
    classes = max(task.classes for task in experiment.tasks)
    cost_cache: dict[
        tuple[Backbone, str, str | None, str], MethodCost
    ] = {}  # settings that differ in nothing else cost the same

    def costs_of(row: MethodRow, task: Task) -> MethodCosts:
        backbone = load(
            row.job_options.get("backbone", experiment.backbone),
            weights=experiment.weights,
            image_size=row.job_options.get("image_size", experiment.protocol.image_size),
        )
        settings, head = row.settings_for(task), row.job_options.get("head")
        segmentation = experiment.segmentation
        if segmentation is not None and head is not None:
            segmentation = replace(segmentation, head=head)
        for setting in settings:
            config = task.resolve_config(setting.config)
            if (backbone, setting.spec, head, config.augment) not in cost_cache:
                cost_cache[backbone, setting.spec, head, config.augment] = (
                    _measure_cost(backbone, setting.spec, head, config, classes, device) if segmentation is None
                    else _measure_segmentation_cost(backbone, setting.spec, segmentation, classes, device)
                )  # fmt: skip
        configs = [(setting.spec, task.resolve_config(setting.config)) for setting in settings]
        return [(cost_cache[backbone, spec, head, config.augment], config) for spec, config in configs]

    seconds: dict[str, float] = {}
    disk_bytes, feature_bytes_by_task = 0.0, dict[str, int]()
    for row in experiment.methods:
        if row.refusal or row.ensemble_of:  # scoring is a small part of the members' cost
            seconds[row.name] = 0.0
            continue
        costs_by_task = {task.name: costs_of(row, task) for task in experiment.tasks}
        seconds[row.name] = sum(_cell_seconds(experiment, task, costs_by_task[task.name]) for task in experiment.tasks)
        seeds = experiment.protocol.seeds * len(experiment.tasks)
        disk_bytes += (
            seeds
            * max(cost.file_bytes for costs in costs_by_task.values() for cost, _ in costs)
            * experiment.keep_tuned
        )
        runs = seeds + sum(len(experiment.search_runs(task, row)) for task in experiment.tasks)
        disk_bytes += runs * (
            RECORD_BYTES + EPOCH_BYTES * max(setting.config.num_epochs for setting in row.all_settings)
        )
        for task in experiment.tasks:  # one cache for all methods
            if cached := [cost for cost, _ in costs_by_task[task.name] if cost.cached_features]:
                trained_images = 2 * (task.images["train"] + task.images["val"]) * cached[0].views_per_image
                feature_bytes_by_task[task.name] = (trained_images + task.images["test"]) * cached[0].feature_bytes
    return Estimate(
        len(remaining_runs(experiment, {})), seconds, round(disk_bytes + sum(feature_bytes_by_task.values()))
    )


def _measure_cost(
    backbone: Backbone, spec: str, head: str | None, config: TaskConfig, classes: int, device: torch.device
) -> MethodCost:
    assert isinstance(config, ClassificationConfig)
    config = config.replace(epochs=3, warmup_epochs=0, probe_epochs=0, learning_rate=1e-6)
    count = min(config.training.batch_size, MAX_TIMED_IMAGES)
    size = backbone.preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), np.uint8)
    examples = Examples(pixels, np.arange(count, dtype=np.int64) % classes)
    model = attach(backbone, spec, classes, head=ClassificationTask().make_readout(head, backbone)).to(device)
    feed = DeviceDataset(examples, backbone.preprocessing, device)
    predict_logits(model, feed)  # the first pass warms up
    start = time.perf_counter()
    predict_logits(model, feed)
    forward = (time.perf_counter() - start) / count
    steps = train(model, examples, config)
    return MethodCost(
        train_seconds=min(epoch.seconds for epoch in steps[1:]) / count,
        forward_seconds=forward,
        cached_features=model.only_head_trains and config.augment in ("none", "random_resized_crop"),
        file_bytes=sum(tensor.numel() * tensor.element_size() for tensor in model.trainable_state_dict().values()),
        feature_bytes=4 * model.width,
        views_per_image=1 + NUM_VIEWS * (config.augment == "random_resized_crop"),
    )


def _measure_segmentation_cost(
    backbone: Backbone, spec: str, segmentation: SegmentationOptions, classes: int, device: torch.device
) -> MethodCost:
    train, forward, model = measure_step(backbone, spec, segmentation, classes, device)
    file_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.inference_state_dict().values())
    return MethodCost(train, forward, cached_features=False, file_bytes=file_bytes, feature_bytes=0)


def _cell_seconds(experiment: Experiment, task: Task, costs: MethodCosts) -> float:
    """Return the time of all runs of a cell; final runs take the mean of all settings, as the selection is unknown."""
    fraction, seeds = experiment.protocol.train_fraction, experiment.protocol.seeds
    images = task.images
    train_on, val, test = fraction * images["train"], images["val"], images["test"]
    trainval = fraction * (images["train"] + images["val"])
    search_seconds = (
        sum(_run_seconds(cost, config, train_on, val, validated=True) for cost, config in costs)
        if len(costs) > 1
        else 0
    )
    final_seconds = (
        seeds * sum(_run_seconds(cost, config, trainval, test, validated=False) for cost, config in costs) / len(costs)
    )
    trained_images, scored_images = train_on * (len(costs) > 1) + trainval, val * (len(costs) > 1) + test
    frozen = sum(
        (trained_images * cost.views_per_image + scored_images) * cost.forward_seconds
        for cost, _ in costs
        if cost.cached_features
    )
    return search_seconds + final_seconds + frozen / len(costs)


def _run_seconds(cost: MethodCost, config: TaskConfig, images: float, scored_images: int, *, validated: bool) -> float:
    """Return the time of a run; `validated` scores val after each epoch."""
    passes = 0.0 if cost.cached_features else scored_images * (config.num_epochs * validated + 1)
    trained = config.num_epochs * images
    if isinstance(config, SegmentationConfig):
        trained = config.iterations * config.training.batch_size
    return trained * cost.train_seconds + passes * cost.forward_seconds
