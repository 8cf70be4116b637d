"""Base of the configurations of single tasks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

from vpt.errors import SpecError
from vpt.methods.base import Method
from vpt.training.config import TrainingConfig, check_options

_COMMON_OPTIONS = frozenset(option.name for option in fields(TrainingConfig))


@dataclass(frozen=True)
class TaskOptions:
    """Base of the options for data and model that each task has.

    Attributes:
        loading: "cache" decodes every image once, "stream" whenever it is used; "auto" streams if decoded images would
            take more than 4 GiB and no folder keeps them.
        workers: Number of processes that decode a stream, or None for one a core, at most 8. No result depends on it.
        skip_corrupt: True leaves unreadable images out.
    """

    loading: Literal["auto", "cache", "stream"] = "auto"
    workers: int | None = None
    skip_corrupt: bool = False

    @property
    def reading(self) -> dict[str, Any]:
        """Options that other commands need to read labels as training did; a tuned file records them."""
        return {}

    def __post_init__(self) -> None:
        """Check the values. A SpecError is raised for a value out of range."""
        check_options(self)
        if self.workers is not None and self.workers < 0:
            raise SpecError(f"workers is {self.workers}; it must be at least 0, for none")


@dataclass(frozen=True)
class TaskConfig(ABC):
    """Base of the training configurations of tasks: the common options, and beside them those of one task.

    Attributes:
        training: Options that every task has.
        task: Name of the task.
        options_class: Class of the task's options for data and model.
        crop_version: Number of the way in which random crops are drawn; a checkpoint of another one cannot go on.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)

    task: ClassVar[str]
    options_class: ClassVar[type[TaskOptions]]
    crop_version: ClassVar[int] = 1

    @property
    @abstractmethod
    def augment(self) -> str:
        """Name of the augmentation."""

    @property
    @abstractmethod
    def num_epochs(self) -> int:
        """Number of epochs: passes over the data, or evaluation intervals. Each ends with a checkpoint."""

    @property
    def metric_sign(self) -> int:
        """1 if more of the metric on val is better, -1 if less is."""
        return 1

    def validates_after(self, epoch: int) -> bool:
        """Return True if an epoch, counted from 0, ends with an evaluation on val."""
        return True

    @abstractmethod
    def lr_at(self, step: int, num_steps: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step.

        Args:
            step: Number of the step, from 0.
            num_steps: Number of all steps.
            steps_per_epoch: Number of steps of an epoch.

        Returns:
            The learning rate.
        """

    @classmethod
    @abstractmethod
    def for_method(cls, method: Method, **options: Any) -> Self:
        """Return the default configuration of a method.

        Args:
            method: The method.
            **options: Options by name that replace the defaults. None leaves the default.

        Returns:
            The configuration.
        """

    @classmethod
    def option_names(cls) -> frozenset[str]:
        """Return the names of all options, common ones and the task's own."""
        return _COMMON_OPTIONS | {option.name for option in fields(cls)} - {"training"}

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> Self:
        """Return the configuration with options by name.

        Args:
            options: Options of the task and common ones in one mapping, as `to_dict` returns them.

        Returns:
            The configuration. Missing options have their defaults.
        """
        own = dict(options)
        common = {name: own.pop(name) for name in _COMMON_OPTIONS & own.keys()}
        return cls(training=TrainingConfig(**common), **own)

    def to_dict(self) -> dict[str, Any]:
        """Return all options by name as JSON values, common ones and the task's own in one mapping."""
        values = asdict(self)
        return {**values.pop("training"), **values}

    def replace(self, **options: Any) -> Self:
        """Return a copy with other options.

        Args:
            **options: Common options and the task's own, by name.

        Returns:
            The configuration.
        """
        return self.from_dict({**self.to_dict(), **options})
