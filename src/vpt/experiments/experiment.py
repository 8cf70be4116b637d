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

from vpt.core.legacy_keys import upgrade_experiment
from vpt.errors import DataError
from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.segmentation.config import SegmentationConfig
from vpt.training import CROP_SCALE, TaskConfig
from vpt.training.job import Job

PROTOCOL_VERSION = 1  # to be raised when the same plan comes to give other figures
CROP_VERSION = (
    2  # the same for runs with random crops alone; 2: cut from images of the shape of those tested, kept larger
)
Stage = Literal["search", "final"]
METRICS = {"top1": "top-1", "miou": "mean IoU"}  # what is measured: its key in a record, and in words
_STAGE_SPLITS: dict[Stage, tuple[str, ...]] = {"search": ("train", "val"), "final": ("train", "val", "test")}


@dataclass(frozen=True)
class Task:
    """One data set. data: a folder or a built-in task. group: tasks are averaged within it.

    images, digests: of each part; a digest is over names, labels and file sizes. notes: what was odd about it.
    resize, augment: its own way to fit and vary images; None is that of the plan and its recipes.
    mask_options: how the masks of a segmentation task are read, as fields of `vpt.tasks.segmentation.config.SegmentationOptions`.
    """

    name: str
    data: str
    group: str
    classes: int
    images: dict[str, int]
    digests: dict[str, str]
    notes: tuple[str, ...] = ()
    resize: Literal["squash", "crop"] | None = None
    augment: Literal["none", "flip", "random_crop", "random_resized_crop"] | None = None
    mask_options: Mapping[str, Any] = field(default_factory=dict)

    def resolve_config(self, config: TaskConfig) -> TaskConfig:
        """A recipe as this task takes it."""
        return config if self.augment is None else config.replace(augment=self.augment)


@dataclass(frozen=True)
class Setting:
    """One setting of a method. spec: the method's text with every field written out."""

    spec: str
    config: TaskConfig

    @property
    def lr(self) -> float:
        """The largest step the optimizer takes: learning rate x batch / 256."""
        return self.config.training.peak_lr


@dataclass(frozen=True)
class MethodRow:
    """One row of the tables: a method by the name it has there, and the settings it may choose from.

    is_head_grid: only heads train, with settings that `train_head_grid` lets differ.
    """

    name: str
    settings: tuple[Setting, ...]
    is_head_grid: bool = False


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
class SegmentationOptions:
    """What the runs of a plan of segmentation tasks share besides; the fields are those of `SegmentationJob`."""

    head: str | None = None
    activation_checkpointing: bool = False


def run_id(config: Mapping[str, Any]) -> str:
    """The id of the run that this `Run.config` describes: a hash of it."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Run:
    """One run. config: everything that decides its result, as JSON values."""

    task: Task
    method: str
    stage: Stage
    setting: Setting
    config: Mapping[str, Any]

    @cached_property
    def id(self) -> str:
        """A hash of `config`."""
        return run_id(self.config)

    @property
    def label(self) -> str:
        """The run in words."""
        config = self.setting.config.training
        settings = f"lr {config.learning_rate:g}, wd {config.weight_decay:g}, seed {config.seed}"
        return f"{self.task.name}  {self.method}  {self.stage}  {settings}"


@dataclass(frozen=True)
class Experiment:
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
    methods: tuple[MethodRow, ...]
    baseline: str | None = None
    keep_tuned: bool = True
    segmentation: SegmentationOptions | None = None

    @property
    def metric(self) -> str:
        """What is measured, a key of METRICS."""
        return "top1" if self.segmentation is None else "miou"

    def cells(self) -> Iterator[tuple[Task, MethodRow]]:
        """Every task with every method, task by task."""
        return ((task, row) for task in self.tasks for row in self.methods)

    def search_runs(self, task: Task, row: MethodRow) -> list[Run]:
        """The runs that choose the settings of one cell; none where there is nothing to choose from."""
        if len(row.settings) == 1:
            return []
        return [self._make_run(task, row, "search", setting) for setting in row.settings]

    def final_runs(self, task: Task, row: MethodRow, setting: Setting) -> list[Run]:
        """The runs whose mean is the figure of one cell, once its settings are chosen."""
        seeds = range(self.protocol.seeds)
        seeded = (replace(setting, config=setting.config.replace(seed=seed)) for seed in seeds)
        return [self._make_run(task, row, "final", one) for one in seeded]

    def is_head_grid(self, task: Task, row: MethodRow, runs: Sequence[Run]) -> bool:
        """Whether these runs of a cell can be done at once: their heads have the same images, and always the same."""
        augments = any(task.resolve_config(run.setting.config).augment != "none" for run in runs)
        seeds = {run.setting.config.training.seed for run in runs}
        alike = self.protocol.train_fraction == 1 or len(seeds) == 1  # each seed has images of its own otherwise
        return row.is_head_grid and len(runs) > 1 and not augments and alike

    @cached_property
    def _run_cache(self) -> dict[tuple[str, str, Stage, Setting], Run]:
        """Runs by what they are made of: workers ask for thousands of them again and again."""
        return {}

    def make_job(self, run: Run, out: Path, cache: Path | None = None) -> Job:
        """What `run_job` is to do."""
        own = {"cache": cache} if self.segmentation is None else self._segmentation_fields(run.task)
        return Job.create(
            run.task.data,
            out,
            run.task.resolve_config(run.setting.config),
            method=run.setting.spec,
            backbone=self.backbone,
            weights=None if self.weights is None else Path(self.weights),
            train_on="train" if run.stage == "search" else "trainval",
            test=run.stage == "final",
            **self._protocol_fields(run.task),
            **own,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        methods = [
            {
                "name": row.name,
                "settings": [{"spec": setting.spec, "config": setting.config.to_dict()} for setting in row.settings],
                "is_head_grid": row.is_head_grid,
            }
            for row in self.methods
        ]
        return {**asdict(self), "methods": methods}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "the plan") -> Experiment:
        """The inverse of `to_dict`. Raises DataError where `values` are of another version."""
        try:
            values = upgrade_experiment(values)
            segmentation = values.get("segmentation")
            config_class = ClassificationConfig if segmentation is None else SegmentationConfig
            methods = tuple(
                MethodRow(
                    **{
                        **row,
                        "settings": tuple(
                            Setting(s["spec"], config_class.from_dict(s["config"])) for s in row["settings"]
                        ),
                    }
                )
                for row in values["methods"]
            )
            tasks = tuple(Task(**{**task, "notes": tuple(task["notes"])}) for task in values["tasks"])
            resolved = {
                "methods": methods,
                "tasks": tasks,
                "protocol": Protocol(**values["protocol"]),
                "segmentation": None if segmentation is None else SegmentationOptions(**segmentation),
            }
            return cls(**{**values, **resolved})
        except (TypeError, KeyError) as error:
            raise DataError(
                f"{source} cannot be read by this vpt ({error}); give the plan again to `vpt bench run`"
            ) from error

    def _make_run(self, task: Task, row: MethodRow, stage: Stage, setting: Setting) -> Run:
        key = (task.name, row.name, stage, setting)
        if key not in self._run_cache:
            self._run_cache[key] = Run(task, row.name, stage, setting, self._run_config(task, stage, setting))
        return self._run_cache[key]

    def _run_config(self, task: Task, stage: Stage, setting: Setting) -> dict[str, Any]:
        own: dict[str, Any] = {} if task.augment is None else {"augment": task.augment}  # the recipe is the plan's
        if task.resolve_config(setting.config).augment in CROP_SCALE:
            own["crop_version"] = CROP_VERSION
        if self.segmentation is not None:
            own["segmentation"] = self._segmentation_fields(task)
        return {
            "protocol": PROTOCOL_VERSION,
            "task": task.name,
            "data": {split: task.digests[split] for split in _STAGE_SPLITS[stage]},
            "backbone": self.backbone,
            "fingerprint": self.fingerprint,
            "method": setting.spec,
            "training": setting.config.to_dict(),
            "stage": stage,
            "train_on": "train" if stage == "search" else "trainval",
            **self._protocol_fields(task),
            **own,
        }

    def _protocol_fields(self, task: Task) -> dict[str, Any]:
        """The protocol as the fields of a job on this task."""
        shared = asdict(self.protocol)
        del shared["seeds"]  # how many there are does not change any one of them
        return shared if task.resize is None else {**shared, "resize": task.resize}

    def _segmentation_fields(self, task: Task) -> dict[str, Any]:
        """What a segmentation job has besides."""
        return {**asdict(self.segmentation), **task.mask_options} if self.segmentation else {}
