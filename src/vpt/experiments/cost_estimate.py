"""The estimated cost of an experiment: a few steps of each method are timed on this machine, and multiplied.

Heads that train at once are counted as if one by one, and take less.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from vpt.backbones import load_backbone
from vpt.backbones.backbone import Backbone
from vpt.experiments.design import MethodRow, Task
from vpt.experiments.experiment import Experiment
from vpt.experiments.method_cost import MethodCost, measure_cost
from vpt.experiments.search import remaining_runs
from vpt.tasks.segmentation.config import SegmentationConfig
from vpt.training import TaskConfig

RECORD_BYTES = 3000  # of a record without its epochs
EPOCH_BYTES = 250

SettingCosts = list[tuple[MethodCost, TaskConfig]]  # of each setting of a method


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
    timer, seeds = _MethodTimer(experiment), experiment.protocol.seeds
    seconds = dict.fromkeys((row.name for row in experiment.methods), 0.0)
    disk_bytes, feature_bytes = 0, dict[str, int]()
    for row in experiment.methods:
        if row.refusal or row.ensemble_of:  # scoring is a small part of the members' cost
            continue
        record_bytes = RECORD_BYTES + EPOCH_BYTES * max(setting.config.num_epochs for setting in row.all_settings)
        file_bytes = 0
        for task in experiment.tasks:
            costs = timer.setting_costs(row, task)
            seconds[row.name] += _cell_seconds(experiment, task, costs)
            file_bytes = max(file_bytes, *(cost.file_bytes for cost, _ in costs))
            disk_bytes += record_bytes * (seeds + len(experiment.search_runs(task, row)))
            if cached := next((cost for cost, _ in costs if cost.cached_features), None):  # one cache for all methods
                trained_images = 2 * (task.images["train"] + task.images["val"]) * cached.views_per_image
                feature_bytes[task.name] = (trained_images + task.images["test"]) * cached.feature_bytes
        disk_bytes += seeds * len(experiment.tasks) * file_bytes * experiment.keep_tuned
    return Estimate(len(remaining_runs(experiment, {})), seconds, disk_bytes + sum(feature_bytes.values()))


class _MethodTimer:
    """Times the methods of an experiment; settings that differ in nothing but numbers cost the same."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.classes = max(task.classes for task in experiment.tasks)
        self.load_cached = cache(load_backbone)
        self.measured: dict[tuple[Backbone, str, str | None, str], MethodCost] = {}

    def setting_costs(self, row: MethodRow, task: Task) -> SettingCosts:
        """Return the cost of each setting of a cell, with its configuration."""
        experiment, segmentation = self.experiment, self.experiment.segmentation
        image_size = row.job_options.get("image_size", experiment.protocol.image_size)
        name = row.job_options.get("backbone", experiment.backbone)
        backbone = self.load_cached(name, weights=experiment.weights, image_size=image_size)
        head = row.job_options.get("head", segmentation and segmentation.head)
        options = {} if segmentation is None else {"activation_checkpointing": segmentation.activation_checkpointing}
        costs = []
        for setting in row.settings_for(task):
            config = task.resolve_config(setting.config)
            key = (backbone, setting.spec, head, config.augment)
            if key not in self.measured:
                self.measured[key] = measure_cost(backbone, setting.spec, config, self.classes, head, **options)
            costs.append((self.measured[key], config))
        return costs


def _cell_seconds(experiment: Experiment, task: Task, costs: SettingCosts) -> float:
    """Return the time of all runs of a cell; final runs take the mean of all settings, as the selection is unknown."""
    fraction, images, searched = experiment.protocol.train_fraction, task.images, len(costs) > 1
    train_on, trainval = fraction * images["train"], fraction * (images["train"] + images["val"])
    seconds = 0.0
    for cost, config in costs:
        if searched:
            seconds += _run_seconds(cost, config, train_on, images["val"] * (config.num_epochs + 1))
        final = experiment.protocol.seeds * _run_seconds(cost, config, trainval, images["test"])
        if cost.cached_features:
            scored_images = images["val"] * searched + images["test"]
            final += ((train_on * searched + trainval) * cost.views_per_image + scored_images) * cost.forward_seconds
        seconds += final / len(costs)
    return seconds


def _run_seconds(cost: MethodCost, config: TaskConfig, images: float, scored_images: int) -> float:
    """Return the time of a run that is scored on so many images in all."""
    trained = config.num_epochs * images
    if isinstance(config, SegmentationConfig):
        trained = config.iterations * config.training.batch_size
    return trained * cost.train_seconds + scored_images * cost.forward_seconds * (not cost.cached_features)
