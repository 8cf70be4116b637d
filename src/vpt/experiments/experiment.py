"""An experiment: tasks x methods x settings x seeds, as runs that are identified by all that decides their result.

The protocol is that of VTAB-1k (paper, section 4.1): each setting trains on train, the score of its last epoch on val
selects one, the selected one trains on train and val with several seeds, and the last epoch is scored on test, once.
The score is top-1, or mean IoU on segmentation tasks; all tasks of an experiment are of one kind.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

from vpt.core.legacy_keys import upgrade_experiment
from vpt.errors import DataError
from vpt.experiments.design import CLASSIFICATION_ONLY, MethodRow, Protocol, SegmentationOptions, Setting, Task
from vpt.experiments.run_identity import LATER_FIELDS, run_id, training_options
from vpt.protocols import Departure
from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.segmentation.config import SegmentationConfig
from vpt.training import TaskConfig, TrainingConfig, parse_augmentation
from vpt.training.job import Job

PROTOCOL_VERSION = 1  # to be raised when the same plan gives other results
CROP_VERSION = 3  # the same for runs with crops; 3: random crops of whole images, center crops as torchvision's
Stage = Literal["search", "final", "ensemble"]
METRICS = {"top1": "top-1", "miou": "mean IoU"}  # key in a record -> name
_STAGE_SPLITS: dict[Stage, tuple[str, ...]] = {"search": ("train", "val"), "final": ("train", "val", "test")}


def _merge_training_options(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a dataclass; those of a configuration as `TaskConfig.to_dict`, in one mapping."""
    values = dict(fields)
    return {**values.pop("training", {}), **values}


@dataclass(frozen=True)
class Run:
    """A run of an experiment.

    Attributes:
        task: Its task.
        method: Name of its row.
        stage: "search" selects a setting, "final" is scored on test, "ensemble" scores final runs together.
        setting: Its setting.
        config: All that decides its result, as JSON values.
    """

    task: Task
    method: str
    stage: Stage
    setting: Setting
    config: Mapping[str, Any]

    @cached_property
    def id(self) -> str:
        """Hash of `config`."""
        return run_id(self.config)

    @property
    def members(self) -> tuple[str, ...]:
        """Ids of the runs that an ensemble consists of; empty for other runs."""
        return tuple(self.config.get("members", ()))

    @property
    def label(self) -> str:
        """Description for people."""
        config = self.setting.config.training
        settings = f"lr {config.learning_rate:g}, wd {config.weight_decay:g}, seed {config.seed}"
        return f"{self.task.name}  {self.method}  {self.stage}  {settings}"


@dataclass(frozen=True)
class Experiment:
    """A plan with its data listed and its backbone identified.

    Attributes:
        name: Name of the plan.
        backbone: Name of the backbone.
        weights: Weight file of the backbone; None takes those that timm downloads.
        fingerprint: Digest of the weights of the backbone at the image size of the plan.
        parameters: Number of parameters of the backbone.
        protocol: Conditions of all runs.
        tasks: Datasets.
        methods: Rows of the tables.
        baseline: Row that the others are compared with; None compares with no row.
        keep_tuned: Keep the tuned files of the final runs.
        segmentation: Options of segmentation tasks; None where the tasks are classification.
        protocol_name: Protocol that the plan follows; None for a plan of its own.
        departures: What the plan sets otherwise.
        source: Fingerprint of the backbone, where that size is not its own; else None.
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
    protocol_name: str | None = None
    departures: tuple[Departure, ...] = ()
    source: str | None = None

    @property
    def metric(self) -> str:
        """Key of the metric in METRICS."""
        return "top1" if self.segmentation is None else "miou"

    def row(self, name: str) -> MethodRow:
        """Return the row of this name."""
        return next(row for row in self.methods if row.name == name)

    def task(self, name: str) -> Task:
        """Return the task of this name."""
        return next(task for task in self.tasks if task.name == name)

    def selecting_task(self, task: Task) -> Task:
        """Return the task on whose val the settings for a task are selected."""
        return task if task.settings_from is None else self.task(task.settings_from)

    def cells(self) -> Iterator[tuple[Task, MethodRow]]:
        """Yield every task with every method, task by task."""
        return ((task, row) for task in self.tasks for row in self.methods)

    def num_final_runs(self, row: MethodRow) -> int:
        """Return the number of final runs of a row on each task."""
        return 0 if row.refusal else 1 if row.ensemble_of else self.protocol.seeds

    def train_on(self, task: Task) -> Literal["train", "trainval"]:
        """Return the splits that final runs on a task train on."""
        return task.train_on or self.protocol.train_on

    def search_runs(self, task: Task, row: MethodRow) -> list[Run]:
        """Return the runs that select the setting of a cell; none for one setting, or one of another task."""
        settings = row.settings_for(task)
        if len(settings) < 2 or row.ensemble_of or row.refusal or task.settings_from is not None:
            return []
        return [self._make_run(task, row, "search", setting) for setting in settings]

    def final_runs(self, task: Task, row: MethodRow, setting: Setting) -> list[Run]:
        """Return the runs with the selected setting of a cell, whose mean is its score."""
        if row.ensemble_of:
            return [self._make_ensemble(task, row, setting)]
        first = self.protocol.first_seed
        seeds = range(first, first + self.protocol.seeds)
        seeded = (replace(setting, config=setting.config.replace(seed=seed)) for seed in seeds)
        return [self._make_run(task, row, "final", one) for one in seeded]

    def is_head_grid(self, task: Task, row: MethodRow, runs: Sequence[Run]) -> bool:
        """Return whether these runs of a cell can train at once: heads on the same images, which never vary."""
        options = self.job_fields(task, row)
        augments = any(task.resolve_config(run.setting.config).augment != "none" for run in runs)
        one_seed = len({run.setting.config.training.seed for run in runs}) == 1
        every_image = options["train_fraction"] == 1 and options["images_per_class"] is None
        same_images = one_seed or (every_image and options["split_seed"] is not None)
        solved = "ridge" in row.job_options
        return row.is_head_grid and not solved and len(runs) > 1 and not augments and same_images

    def job_fields(self, task: Task, row: MethodRow) -> dict[str, Any]:
        """Return the fields of the jobs of a cell that the protocol, the task and the row decide."""
        own = {name: value for name, value in row.job_options.items() if name != "backbone"}
        of_task = {key: getattr(task, key) for key in ("resize", "crop_fraction", "images_per_class")}
        given = {name: value for name, value in of_task.items() if value is not None}
        return {**self.protocol.job_fields(), **given, **own}

    @cached_property
    def _run_cache(self) -> dict[tuple[str, str, Stage, Setting], Run]:
        """Runs by what they are made of: workers ask for thousands of them again and again."""
        return {}

    def make_job(self, run: Run, out: Path, cache: Path | None = None) -> Job:
        """Return the job of a run.

        Args:
            run: Run that trains.
            out: Path of the tuned file.
            cache: Folder for decoded images and features; None keeps none.

        Returns:
            The job of a run.
        """
        row = self.row(run.method)
        options = {"cache": cache, **self._segmentation_fields(run.task), **self.job_fields(run.task, row)}
        if self.segmentation is not None:
            options = {name: value for name, value in options.items() if name not in ("cache", *CLASSIFICATION_ONLY)}
        return Job.create(
            run.task.data,
            out,
            run.task.resolve_config(run.setting.config),
            method=run.setting.spec,
            backbone=row.job_options.get("backbone", self.backbone),
            weights=None if self.weights is None else Path(self.weights),
            train_on=run.config["train_on"],
            test=run.stage != "search",
            **options,
        )

    def with_all_decaying(self) -> "Experiment":
        """Return the experiment as earlier versions ran it: weight decay is for all tensors, unless a row says more."""
        values = self.to_dict()
        for row in values["methods"]:
            for setting in chain(row["settings"], *row["task_settings"].values()):
                if setting["config"]["decay"] == TrainingConfig.decay:
                    del setting["config"]["decay"]
        return Experiment.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Return the experiment as JSON values."""
        return asdict(self, dict_factory=_merge_training_options)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "the plan") -> Self:
        """Return the experiment that `to_dict` gave.

        Args:
            values: JSON values, of this or of an earlier version.
            source: Name of the file for messages.

        Returns:
            The experiment that `to_dict` gave.

        Raises:
            DataError: `values` are of a later version, or damaged.
        """
        values = upgrade_experiment(values)
        try:
            segmentation = values.get("segmentation")
            config_class: type[TaskConfig] = ClassificationConfig if segmentation is None else SegmentationConfig

            def settings(rows: Sequence[Mapping[str, Any]]) -> tuple[Setting, ...]:
                earlier = {"decay": "all"}  # earlier versions had no other rule
                return tuple(Setting(row["spec"], config_class.from_dict({**earlier, **row["config"]})) for row in rows)

            methods = tuple(
                MethodRow(**{**row, "settings": settings(row["settings"]), "task_settings": {
                    task: settings(own) for task, own in row.get("task_settings", {}).items()
                }})
                for row in values["methods"]
            )  # fmt: skip
            resolved = {
                "methods": methods,
                "tasks": tuple(Task(**{**task, "notes": tuple(task["notes"])}) for task in values["tasks"]),
                "protocol": Protocol(**values["protocol"]),
                "departures": tuple(Departure(**departure) for departure in values.get("departures", ())),
                "segmentation": None if segmentation is None else SegmentationOptions(**segmentation),
            }
            return cls(**{**values, **resolved})
        except (TypeError, KeyError) as error:
            raise DataError(
                f"{source} cannot be read by this version of vpt ({error}); give the plan again to `vpt bench run`"
            ) from error

    def _make_run(self, task: Task, row: MethodRow, stage: Stage, setting: Setting) -> Run:
        key = (task.name, row.name, stage, setting)
        if key not in self._run_cache:
            self._run_cache[key] = Run(task, row.name, stage, setting, self._run_config(task, row, stage, setting))
        return self._run_cache[key]

    def _make_ensemble(self, task: Task, row: MethodRow, setting: Setting) -> Run:
        members = self.final_runs(task, self.row(str(row.ensemble_of)), setting)
        config = {**members[0].config, "stage": "ensemble", "members": [run.id for run in members]}
        return Run(task, row.name, "ensemble", setting, config)

    def _run_config(self, task: Task, row: MethodRow, stage: Stage, setting: Setting) -> dict[str, Any]:
        shared = {"augment": task.augment, "epochs": task.epochs}  # training has the plan's
        own: dict[str, Any] = {key: value for key, value in shared.items() if value is not None}
        job_fields = self.job_fields(task, row)
        if self.segmentation is not None:
            own["segmentation"] = self._segmentation_fields(task)
        elif job_fields["resize"] == "crop" or parse_augmentation(task.resolve_config(setting.config).augment).crop:
            own["crop_version"] = CROP_VERSION
        for key, default in LATER_FIELDS.items():
            if job_fields[key] == default:  # ids of plans without it stay as they are
                del job_fields[key]
        return {
            "protocol": PROTOCOL_VERSION,
            "task": task.name,
            "data": {split: task.digests[split] for split in _STAGE_SPLITS[stage]},
            "backbone": row.job_options.get("backbone", self.backbone),
            "fingerprint": row.fingerprint or self.fingerprint,
            "method": setting.spec,
            "training": training_options(setting.config),
            "stage": stage,
            "train_on": "train" if stage == "search" else self.train_on(task),
            **job_fields,
            **own,
        }

    def _segmentation_fields(self, task: Task) -> dict[str, Any]:
        """Return the fields that only a segmentation job has."""
        return {**asdict(self.segmentation), **task.mask_options} if self.segmentation else {}
