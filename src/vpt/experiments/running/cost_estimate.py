"""The estimated cost of an experiment: a few steps of each method are timed on this machine, and multiplied.

Heads that train at once are counted as if one by one, and take less.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from vpt.backbones import load_backbone
from vpt.backbones.backbone import Backbone
from vpt.core.text import comma_list, format_duration, pluralize
from vpt.experiments.design import MethodRow, Task
from vpt.experiments.experiment import Experiment
from vpt.experiments.running.method_cost import MethodCost, measure_cost
from vpt.experiments.selection import remaining_runs
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
        images: Number of training images over all epochs of all runs.
        cell_seconds: Row -> task -> time of its runs; a row that is refused has no tasks.
        disk_bytes: Size of records, tuned files and cached features.
        settings_from: Task -> the task whose selected settings it takes, for those that take some.
    """

    runs: int
    images: int
    cell_seconds: dict[str, dict[str, float]]
    disk_bytes: int
    settings_from: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> dict[str, float]:
        """Row -> time of its runs."""
        return {row: sum(cells.values()) for row, cells in self.cell_seconds.items()}

    @property
    def total_seconds(self) -> float:
        """Time of all runs."""
        return sum(self.seconds.values())

    def fitting_tasks(self, seconds: float, rows: Sequence[str]) -> list[str]:
        """Return the tasks whose runs end within a time, the cheapest first.

        A task that takes its settings from another one comes after that.

        Args:
            seconds: The time.
            rows: The rows that are run.

        Returns:
            Names of tasks.
        """
        costs, found = self._task_seconds(rows), list[str]()
        while True:
            left = [task for task in costs if task not in found and self.settings_from.get(task) in (None, *found)]
            cheapest = min(left, key=lambda task: costs[task], default=None)
            if cheapest is None or costs[cheapest] > seconds:
                return found
            seconds -= costs[cheapest]
            found.append(cheapest)

    def describe_hours(self, hours: float) -> list[str]:
        """Return what some hours suffice for, in words: a line for all methods, and one for each.

        Args:
            hours: The time.

        Returns:
            Lines of text.
        """
        rows = [row for row, cells in self.cell_seconds.items() if cells]
        return [f"in {hours:g} h".ljust(10) + self._describe_hours(hours, "all methods", rows)] + [
            " " * 10 + self._describe_hours(hours, f"{row} alone", [row]) for row in rows
        ]

    def _describe_hours(self, hours: float, name: str, rows: list[str]) -> str:
        costs = self._task_seconds(rows)
        fitting = self.fitting_tasks(3600 * hours, rows)
        if not costs:
            return f"{name}: none that the backbone takes"
        if len(fitting) == len(costs):
            return f"{name}: all tasks"
        if not fitting:
            return f"{name}: no task; the least takes about {format_duration(min(costs.values()))}"
        return f"{name}: {len(fitting)} of {pluralize(len(costs), 'task')}: {comma_list(fitting)}"

    def _task_seconds(self, rows: Sequence[str]) -> dict[str, float]:
        """Task -> time of the runs of these rows."""
        costs: dict[str, float] = {}
        for row in rows:
            for task, cost in self.cell_seconds[row].items():
                costs[task] = costs.get(task, 0.0) + cost
        return costs

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON has them.

        Returns:
            Counts, and the time of each row and of each of its tasks.
        """
        return {**asdict(self), "seconds": self.seconds}


def estimate_cost(experiment: Experiment, images_per_second: float | None = None) -> Estimate:
    """Return the estimated cost of an experiment; each method is timed on its backbone with random images and weights.

    Args:
        experiment: The experiment.
        images_per_second: Training rate of every method, of which a forward pass takes a third; nothing is timed then.

    Returns:
        The estimated cost of an experiment.
    """
    timer, seeds = _MethodTimer(experiment, images_per_second), experiment.protocol.seeds
    cell_seconds: dict[str, dict[str, float]] = {row.name: {} for row in experiment.methods}
    images, disk_bytes, feature_bytes = 0.0, 0, dict[str, int]()
    for row in experiment.methods:
        if row.refusal or row.ensemble_of:  # scoring is a small part of the members' cost
            continue
        record_bytes = RECORD_BYTES + EPOCH_BYTES * max(setting.config.num_epochs for setting in row.all_settings)
        file_bytes = 0
        for task in experiment.tasks:
            costs = timer.setting_costs(row, task)
            cell_images, seconds = _cell_cost(experiment, task, row, costs)
            images += cell_images
            cell_seconds[row.name][task.name] = seconds
            file_bytes = max(file_bytes, *(cost.file_bytes for cost, _ in costs))
            disk_bytes += record_bytes * (seeds + len(experiment.search_runs(task, row)))
            if cached := next((cost for cost, _ in costs if cost.cached_features), None):  # one cache for all methods
                trained_images = 2 * (task.images["train"] + task.images["val"]) * cached.views_per_image
                feature_bytes[task.name] = (trained_images + task.images["test"]) * cached.feature_bytes
        disk_bytes += seeds * len(experiment.tasks) * file_bytes * experiment.keep_tuned
    runs = len(remaining_runs(experiment, {}))
    taken = {task.name: task.settings_from for task in experiment.tasks if task.settings_from is not None}
    return Estimate(runs, round(images), cell_seconds, disk_bytes + sum(feature_bytes.values()), taken)


class _MethodTimer:
    """Times the methods of an experiment; settings that differ in nothing but numbers cost the same."""

    def __init__(self, experiment: Experiment, images_per_second: float | None) -> None:
        self.experiment, self.images_per_second = experiment, images_per_second
        self.classes = max(task.classes for task in experiment.tasks)
        self.load_cached = cache(load_backbone)
        self.measured: dict[tuple[Backbone, str, str | None, str], MethodCost] = {}

    def setting_costs(self, row: MethodRow, task: Task) -> SettingCosts:
        """Return the cost of each setting of a cell, with its configuration."""
        experiment, segmentation = self.experiment, self.experiment.segmentation
        image_size = row.job_options.get("image_size", experiment.protocol.image_size)
        name = row.job_options.get("backbone", experiment.backbone)
        device = "cpu" if self.images_per_second is None else "meta"
        backbone = self.load_cached(name, image_size=image_size, pretrained=False, device=device)
        head = row.job_options.get("head", segmentation and segmentation.head)
        options = {} if segmentation is None else {"activation_checkpointing": segmentation.activation_checkpointing}
        costs = []
        for setting in row.settings_for(experiment.selecting_task(task)):
            config = task.resolve_config(setting.config)
            key = (backbone, setting.spec, head, config.augment)
            if key not in self.measured:
                self.measured[key] = measure_cost(
                    backbone, setting.spec, config, self.classes, head, self.images_per_second, **options
                )
            costs.append((self.measured[key], config))
        return costs


def _cell_cost(experiment: Experiment, task: Task, row: MethodRow, costs: SettingCosts) -> tuple[float, float]:
    """Return the training images and the time of all runs of a cell.

    Final runs take the mean of all settings, as the selection is unknown.
    """
    options, sizes = experiment.job_fields(task, row), task.images
    fraction = options["train_fraction"]
    searched = len(costs) > 1 and task.settings_from is None
    limit = task.classes * (options["images_per_class"] or max(sizes["train"], 1))
    train = min(limit, fraction * sizes["train"])
    final = min(limit, train + fraction * sizes["val"] * (experiment.train_on(task) == "trainval"))
    finals = experiment.protocol.seeds / len(costs)  # of each setting
    images = seconds = 0.0
    for cost, config in costs:
        search_scored = sizes["val"] * (sum(map(config.validates_after, range(config.num_epochs))) + 1)
        for runs, count, scored in ((searched, train, search_scored), (finals, final, sizes["test"])):
            trained = config.num_epochs * count
            if isinstance(config, SegmentationConfig):
                trained = config.iterations * config.training.batch_size
            images += runs * trained
            forward_seconds = scored * cost.forward_seconds * (not cost.cached_features)
            seconds += runs * (trained * cost.train_seconds + forward_seconds)
        if cost.cached_features:
            scored_images = sizes["val"] * searched + sizes["test"]
            features = (train * searched + final) * cost.views_per_image + scored_images
            seconds += features * cost.forward_seconds / len(costs)
    return images, seconds
