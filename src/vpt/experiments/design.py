"""The design of an experiment: its tasks, its methods with their settings, and the protocol of its runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vpt.tasks.classification.config import ClassificationConfig
from vpt.training import TaskConfig

# Fields of jobs, and so keys of plans, that segmentation does not have.
CLASSIFICATION_ONLY = (
    "test_fraction", "train_fraction", "images_per_class", "resize", "crop_fraction", "interpolation",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A dataset of an experiment.

    Attributes:
        name: Name in all tables.
        data: Folder or name of a built-in task.
        group: Tasks of a group are averaged.
        classes: Number of classes.
        images: Split -> number of images.
        digests: Split -> digest of names, labels and file sizes.
        notes: What the user should know about the data.
        resize: Resizing of this task; None takes that of the protocol.
        crop_fraction: Side of a crop of this task, as a fraction of the short side; None takes that of the protocol.
        augment: Augmentation of this task; None takes that of each setting.
        train_on: Splits that final runs of this task train on; None takes that of the protocol.
        images_per_class: Number of training images of each class at most; None takes that of the protocol.
        epochs: Epochs of this task; None takes those of each setting. The share of the warm-up stays.
        settings_from: Task whose selected settings this one takes; None selects its own.
        mask_options: Options of segmentation that say how masks are read.
    """

    name: str
    data: str
    group: str
    classes: int
    images: dict[str, int]
    digests: dict[str, str]
    notes: tuple[str, ...] = ()
    resize: Literal["squash", "crop"] | None = None
    crop_fraction: float | None = None
    augment: Literal["none", "flip", "random_crop", "random_resized_crop"] | None = None
    train_on: Literal["train", "trainval"] | None = None
    images_per_class: int | None = None
    epochs: int | None = None
    settings_from: str | None = None
    mask_options: Mapping[str, Any] = field(default_factory=dict)

    def resolve_config(self, config: TaskConfig) -> TaskConfig:
        """Return a training configuration with the augmentation and the epochs of this task."""
        if self.augment is not None:
            config = config.replace(augment=self.augment)
        if self.epochs is not None:
            assert isinstance(config, ClassificationConfig)
            warmup_epochs = config.warmup_epochs * self.epochs / config.epochs
            config = config.replace(epochs=self.epochs, warmup_epochs=warmup_epochs)
        return config


@dataclass(frozen=True)
class Setting:
    """A method with a training configuration.

    Attributes:
        spec: Text of the method with every field.
        config: Training configuration.
    """

    spec: str
    config: TaskConfig


@dataclass(frozen=True)
class MethodRow:
    """A row of the tables: a named method and the settings to choose from.

    Attributes:
        name: Name in all tables.
        settings: Settings to choose from on val.
        is_head_grid: Only heads train, with settings that `train_head_grid` lets differ.
        task_settings: Task -> settings on this task, where they are not `settings`.
        job_options: Fields of the job that differ from the experiment: backbone, image_size, head, split_seed,
            train_fraction, images_per_class, ridge and lda.
        fingerprint: Digest of the weights of the backbone of this row at its image size; None takes that of the
            experiment.
        ensemble_of: Name of the row whose final runs are scored together as one model; no run of this row trains then.
        refusal: Reason why the row has no runs; empty where it has.
        source: Fingerprint of the backbone of this row, where that size is not its own; else None.
        parameters: Number of parameters of the backbone of this row at its image size; None takes that of the
            experiment, and is unknown for a row with a fingerprint in plans of earlier versions.
    """

    name: str
    settings: tuple[Setting, ...]
    is_head_grid: bool = False
    task_settings: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)
    job_options: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    ensemble_of: str | None = None
    refusal: str = ""
    source: str | None = None
    parameters: int | None = None

    def settings_for(self, task: Task) -> tuple[Setting, ...]:
        """Return the settings to choose from on a task."""
        return self.task_settings.get(task.name, self.settings)

    @property
    def all_settings(self) -> tuple[Setting, ...]:
        """The settings of all tasks."""
        return (*self.settings, *(setting for settings in self.task_settings.values() for setting in settings))


@dataclass(frozen=True)
class Protocol:
    """The conditions that all runs share; fields that are not described here are those of `Job`.

    Attributes:
        seeds: Number of final runs of each method on each task.
        first_seed: Seed of the first of them.
        split_seed: Seed of the cuts into train, val and test and of the images of a built-in task; one for all runs, so
            that no image of a test split that vpt cuts ever trains. None takes the seed of each run.
        train_on: Splits that final runs train on.
        selection: Score on val that selects a setting: that of the last epoch.
        ties: Setting that is selected of several with the same score: that of the "smaller_rate" at the peak, or the
            first in the "order" of the plan.
    """

    seeds: int = 5
    split_seed: int | None = 0
    val_fraction: float = 0.2
    test_fraction: float = 0.2
    train_fraction: float = 1.0
    images_per_class: int | None = None
    image_size: int | None = None
    resize: Literal["squash", "crop"] = "squash"
    crop_fraction: float | None = None
    interpolation: str | None = None
    normalization: str = "backbone"
    value_range: str | None = None
    first_seed: int = 0
    train_on: Literal["train", "trainval"] = "trainval"
    skip_corrupt: bool = False
    selection: Literal["last_epoch"] = "last_epoch"
    ties: Literal["smaller_rate", "order"] = "smaller_rate"

    def job_fields(self) -> dict[str, Any]:
        """Return the fields that every job has."""
        common = ("split_seed", "val_fraction", "image_size", "normalization", "value_range", "skip_corrupt")
        return {name: getattr(self, name) for name in (*common, *CLASSIFICATION_ONLY)}


@dataclass(frozen=True)
class SegmentationOptions:
    """The options that all runs on segmentation tasks share; the fields are those of the options of the task."""

    head: str | None = None
    activation_checkpointing: bool = False
