"""A plan: tasks x methods x settings x seeds, as an ordered list of runs that are named by what decides their result.

The protocol is that of VTAB-1k (paper, section 4.1): train each setting on train, choose by the last epoch's score on
val, train what was chosen on train and val with several seeds, and score the last epoch on test, once. The score is
top-1, or mean IoU where the tasks are segmentation: a plan has tasks of one kind, and its means are of one thing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vpt.errors import DataError
from vpt.tasks.segmentation.job import SegmentJob
from vpt.tasks.segmentation.training import Course
from vpt.training import SIDES, Recipe
from vpt.training.job import Job

PROTOCOL = 1  # to be raised when the same plan comes to give other figures
CROPS = 2  # the same for runs with random crops alone; 2: cut from images of the shape of those tested, kept larger
Stage = Literal["choose", "final"]
METRICS = {"top1": "top-1", "miou": "mean IoU"}  # what is measured: its key in a record, and in words
_PARTS: dict[Stage, tuple[str, ...]] = {"choose": ("train", "val"), "final": ("train", "val", "test")}


@dataclass(frozen=True)
class Task:
    """One data set. data: a folder or a built-in task. group: tasks are averaged within it.

    images, digests: of each part; a digest is over names, labels and file sizes. notes: what was odd about it.
    resize, augment: its own way to fit and vary images; None is that of the plan and its recipes.
    masks: how the masks of a segmentation task are read, as fields of `SegmentJob`.
    """

    name: str
    data: str
    group: str
    classes: int
    images: dict[str, int]
    digests: dict[str, str]
    notes: tuple[str, ...] = ()
    resize: Literal["squash", "crop"] | None = None
    augment: Literal["none", "flip", "crop", "resize_crop"] | None = None
    masks: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, chosen: Recipe) -> Recipe:
        """A recipe as this task takes it."""
        return chosen if self.augment is None else replace(chosen, augment=self.augment)


@dataclass(frozen=True)
class Candidate:
    """One setting of a method. spec: the method's text with every field written out."""

    spec: str
    recipe: Recipe

    @property
    def step_size(self) -> float:
        """The largest step the optimizer takes: learning rate x batch / 256."""
        return self.recipe.learning_rate * self.recipe.batch_size / 256


@dataclass(frozen=True)
class Entry:
    """One row of the tables: a method by the name it has there, and the settings it may choose from.

    at_once: only heads train, with settings that `train_grid` lets differ.
    """

    name: str
    candidates: tuple[Candidate, ...]
    at_once: bool = False


@dataclass(frozen=True)
class Protocol:
    """What all runs share besides their recipes; the fields are those of `Job`. seeds: final runs of each method.

    split_seed: the same for all runs, so that no image of a test set that vpt cuts itself ever trains.
    """

    seeds: int = 5
    split_seed: int = 0
    val_fraction: float = 0.2
    test_fraction: float = 0.2
    train_fraction: float = 1.0
    image_size: int | None = None
    resize: Literal["squash", "crop"] = "squash"
    interpolation: str | None = None


@dataclass(frozen=True)
class Segmentation:
    """What the runs of a plan of segmentation tasks share besides; the fields are those of `SegmentJob`."""

    head: str | None = None
    recompute_blocks: bool = False


@dataclass(frozen=True)
class Run:
    """One run. config: everything that decides its result, as JSON values."""

    task: Task
    method: str
    stage: Stage
    candidate: Candidate
    config: Mapping[str, Any]

    @cached_property
    def id(self) -> str:
        """A hash of `config`."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:20]

    @property
    def label(self) -> str:
        """The run in words."""
        recipe = self.candidate.recipe
        settings = f"lr {recipe.learning_rate:g}, wd {recipe.weight_decay:g}, seed {recipe.seed}"
        return f"{self.task.name}  {self.method}  {self.stage}  {settings}"


@dataclass(frozen=True)
class Plan:
    """A plan that has been resolved: its data were listed, its backbone's weights have a fingerprint.

    parameters: of the backbone. baseline: the row that the others are measured against; None where there is none.
    keep_tuned: keep the tuned files of the final runs. segmentation: None where the tasks are classification.
    """

    name: str
    backbone: str
    weights: str | None
    fingerprint: str
    parameters: int
    protocol: Protocol
    tasks: tuple[Task, ...]
    entries: tuple[Entry, ...]
    baseline: str | None = None
    keep_tuned: bool = True
    segmentation: Segmentation | None = None

    @property
    def metric(self) -> str:
        """What is measured, a key of METRICS."""
        return "top1" if self.segmentation is None else "miou"

    def cells(self) -> Iterator[tuple[Task, Entry]]:
        """Every task with every method, task by task."""
        return ((task, entry) for task in self.tasks for entry in self.entries)

    def choosing(self, task: Task, entry: Entry) -> list[Run]:
        """The runs that choose the settings of one cell; none where there is nothing to choose from."""
        if len(entry.candidates) == 1:
            return []
        return [self._run(task, entry, "choose", candidate) for candidate in entry.candidates]

    def final(self, task: Task, entry: Entry, candidate: Candidate) -> list[Run]:
        """The runs whose mean is the figure of one cell, once its settings are chosen."""
        seeds = range(self.protocol.seeds)
        seeded = (replace(candidate, recipe=replace(candidate.recipe, seed=seed)) for seed in seeds)
        return [self._run(task, entry, "final", one) for one in seeded]

    def at_once(self, task: Task, entry: Entry, runs: Sequence[Run]) -> bool:
        """Whether these runs of a cell can be done at once: their heads have the same images, and always the same."""
        augments = any(task.recipe(run.candidate.recipe).augment != "none" for run in runs)
        seeds = {run.candidate.recipe.seed for run in runs}
        alike = self.protocol.train_fraction == 1 or len(seeds) == 1  # each seed has images of its own otherwise
        return entry.at_once and len(runs) > 1 and not augments and alike

    @cached_property
    def _made(self) -> dict[tuple[str, str, Stage, Candidate], Run]:
        """Runs by what they are made of: workers ask for thousands of them again and again."""
        return {}

    def job(self, run: Run, out: Path, cache: Path | None = None) -> Job:
        """What `tune` or `tune_segmentation` is to do."""
        kind, own = (Job, {}) if self.segmentation is None else (SegmentJob, self._dense(run.task))
        return kind(
            data=run.task.data,
            out=out,
            recipe=run.task.recipe(run.candidate.recipe),
            method=run.candidate.spec,
            backbone=self.backbone,
            weights=None if self.weights is None else Path(self.weights),
            train_on="train" if run.stage == "choose" else "trainval",
            test=run.stage == "final",
            cache=cache,
            **self._shared(run.task),
            **own,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "the plan") -> Plan:
        """The inverse of `as_dict`. Raises DataError where `values` are of another version."""
        try:
            dense = values.get("segmentation")
            recipe = Recipe if dense is None else Course
            entries = tuple(
                Entry(**{**entry, "candidates": tuple(Candidate(c["spec"], recipe(**c["recipe"])) for c in rows)})
                for entry, rows in ((entry, entry["candidates"]) for entry in values["entries"])
            )
            tasks = tuple(Task(**{**task, "notes": tuple(task["notes"])}) for task in values["tasks"])
            protocol = Protocol(**values["protocol"])
            segmentation = None if dense is None else Segmentation(**dense)
            made = {"entries": entries, "tasks": tasks, "protocol": protocol, "segmentation": segmentation}
            return cls(**{**values, **made})
        except (TypeError, KeyError) as error:
            raise DataError(
                f"{source} cannot be read by this vpt ({error}); give the plan again to `vpt bench run`"
            ) from error

    def _run(self, task: Task, entry: Entry, stage: Stage, candidate: Candidate) -> Run:
        key = (task.name, entry.name, stage, candidate)
        if key not in self._made:
            self._made[key] = Run(task, entry.name, stage, candidate, self._config(task, stage, candidate))
        return self._made[key]

    def _config(self, task: Task, stage: Stage, candidate: Candidate) -> dict[str, Any]:
        own: dict[str, Any] = {} if task.augment is None else {"augment": task.augment}  # the recipe is the plan's
        if task.recipe(candidate.recipe).augment in SIDES:
            own["crops"] = CROPS
        if self.segmentation is not None:
            own["segmentation"] = self._dense(task)
        return {
            "protocol": PROTOCOL,
            "task": task.name,
            "data": {part: task.digests[part] for part in _PARTS[stage]},
            "backbone": self.backbone,
            "fingerprint": self.fingerprint,
            "method": candidate.spec,
            "recipe": candidate.recipe.as_dict(),
            "stage": stage,
            "train_on": "train" if stage == "choose" else "trainval",
            **self._shared(task),
            **own,
        }

    def _shared(self, task: Task) -> dict[str, Any]:
        """The protocol as the fields of a job on this task."""
        shared = asdict(self.protocol)
        del shared["seeds"]  # how many there are does not change any one of them
        return shared if task.resize is None else {**shared, "resize": task.resize}

    def _dense(self, task: Task) -> dict[str, Any]:
        """What a segmentation job has besides."""
        return {**asdict(self.segmentation), **task.masks} if self.segmentation else {}
