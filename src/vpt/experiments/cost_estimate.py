"""What a plan will cost: a few steps of each method are timed here and now, and multiplied. An estimate, no promise.

Heads that are trained at once are counted as if one by one, and take less.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from vpt.backbones import load_backbone
from vpt.backbones.backbone import Backbone
from vpt.experiments.experiment import Entry, Plan, Segmentation, Task
from vpt.experiments.search import left
from vpt.experiments.segmentation_tasks import step_cost
from vpt.model.tuned_model import attach
from vpt.tasks.segmentation.training import Course
from vpt.training import Examples, Feed, Recipe, distributed, logits_of, train
from vpt.training.feature_cache import VIEWS

IMAGES = 32  # at most, in the step that is timed
RECORD_BYTES = 3000  # of a record without its epochs
EPOCH_BYTES = 250


@dataclass(frozen=True)
class Cost:
    """What one method costs. train, forward: seconds per image, of a training step and of a forward pass.

    once: only its head trains, so that the forward pass runs once per image for all runs, and `train` is of the head.
    views: how often then, of an image that is learned from: each of its random crops is an image, too.
    file_bytes: of one tuned file. feature_bytes: of one cached feature.
    """

    train: float
    forward: float
    once: bool
    file_bytes: int
    feature_bytes: int
    views: int = 1


Costs = list[tuple[Cost, Recipe]]  # of each setting of a method


@dataclass(frozen=True)
class Estimate:
    """What all runs of a plan will take, one after the other on this machine; reading the images is not in it."""

    runs: int
    seconds: dict[str, float]
    disk_bytes: int

    @property
    def total_seconds(self) -> float:
        """Over all methods."""
        return sum(self.seconds.values())


def estimate(plan: Plan) -> Estimate:
    """Time each method on the plan's own backbone, with random images."""
    device = distributed.local_device()
    backbone = load_backbone(plan.backbone, weights=plan.weights, image_size=plan.protocol.image_size)
    classes = max(task.classes for task in plan.tasks)
    known: dict[tuple[str, str], Cost] = {}  # settings that differ in nothing else cost the same

    def costs_of(entry: Entry, task: Task) -> Costs:
        for candidate in entry.candidates:
            recipe = task.recipe(candidate.recipe)
            if (candidate.spec, recipe.augment) not in known:
                known[candidate.spec, recipe.augment] = (
                    _cost(backbone, candidate.spec, recipe, classes, device) if plan.segmentation is None
                    else _dense_cost(backbone, candidate.spec, plan.segmentation, classes, device)
                )  # fmt: skip
        recipes = [(candidate.spec, task.recipe(candidate.recipe)) for candidate in entry.candidates]
        return [(known[spec, recipe.augment], recipe) for spec, recipe in recipes]

    seconds: dict[str, float] = {}
    disk, kept = 0.0, dict[str, int]()
    for entry in plan.entries:
        costs = {task.name: costs_of(entry, task) for task in plan.tasks}
        seconds[entry.name] = sum(_seconds(plan, task, costs[task.name]) for task in plan.tasks)
        seeds = plan.protocol.seeds * len(plan.tasks)
        disk += seeds * max(cost.file_bytes for each in costs.values() for cost, _ in each) * plan.keep_tuned
        runs = seeds + (len(entry.candidates) > 1) * len(entry.candidates) * len(plan.tasks)
        disk += runs * (RECORD_BYTES + EPOCH_BYTES * max(c.recipe.epochs for c in entry.candidates))
        for task in plan.tasks:  # one cache for all methods
            if cached := [cost for cost, _ in costs[task.name] if cost.once]:
                learned = 2 * (task.images["train"] + task.images["val"]) * cached[0].views
                kept[task.name] = (learned + task.images["test"]) * cached[0].feature_bytes
    return Estimate(len(left(plan, {})), seconds, round(disk + sum(kept.values())))


def _cost(backbone: Backbone, spec: str, recipe: Recipe, classes: int, device: torch.device) -> Cost:
    recipe = replace(recipe, epochs=3, warmup_epochs=0, probe_epochs=0, learning_rate=1e-6)
    count = min(recipe.batch_size, IMAGES)
    size = backbone.preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), np.uint8)
    examples = Examples(pixels, np.arange(count, dtype=np.int64) % classes)
    model = attach(backbone, spec, classes).to(device)
    feed = Feed(examples, backbone.preprocessing, device)
    logits_of(model, feed)  # the first pass warms up
    began = time.perf_counter()
    logits_of(model, feed)
    forward = (time.perf_counter() - began) / count
    steps = train(model, examples, recipe)
    return Cost(
        train=min(epoch.seconds for epoch in steps[1:]) / count,
        forward=forward,
        once=model.only_head_trains and recipe.augment in ("none", "resize_crop"),
        file_bytes=sum(tensor.numel() * tensor.element_size() for tensor in model.owned_state().values()),
        feature_bytes=4 * model.width,
        views=1 + VIEWS * (recipe.augment == "resize_crop"),
    )


def _dense_cost(backbone: Backbone, spec: str, segmentation: Segmentation, classes: int, device: torch.device) -> Cost:
    train, forward, model = step_cost(backbone, spec, segmentation, classes, device)
    file_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.kept_state().values())
    return Cost(train, forward, once=False, file_bytes=file_bytes, feature_bytes=0)


def _seconds(plan: Plan, task: Task, each: Costs) -> float:
    """Of all runs of one cell. Which of several texts is chosen is not known yet, so the final runs are their mean."""
    fraction, seeds = plan.protocol.train_fraction, plan.protocol.seeds
    images = task.images
    train_on, val, test = fraction * images["train"], images["val"], images["test"]
    both = fraction * (images["train"] + images["val"])
    choosing = sum(_run(cost, recipe, train_on, val, watched=True) for cost, recipe in each) if len(each) > 1 else 0
    final = seeds * sum(_run(cost, recipe, both, test, watched=False) for cost, recipe in each) / len(each)
    learned, scored = train_on * (len(each) > 1) + both, val * (len(each) > 1) + test
    frozen = sum((learned * cost.views + scored) * cost.forward for cost, _ in each if cost.once)
    return choosing + final + frozen / len(each)


def _run(cost: Cost, recipe: Recipe, images: float, scored: int, *, watched: bool) -> float:
    """One run; `watched` scores after each epoch too."""
    passes = 0.0 if cost.once else scored * (recipe.epochs * watched + 1)
    trained = recipe.iterations * recipe.batch_size if isinstance(recipe, Course) else recipe.epochs * images
    return trained * cost.train + passes * cost.forward
