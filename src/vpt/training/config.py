"""Training configurations: the options of every task, and the base of the configurations of single tasks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

import torch
from torch import nn

from vpt.core.text import did_you_mean
from vpt.errors import SpecError
from vpt.methods.base import Method


def check_choices(config: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Check that fields of a configuration have known values.

    Args:
        config: The configuration.
        choices: Field name -> accepted values.

    Raises:
        SpecError: A field has another value.
    """
    for name, known in choices.items():
        value = getattr(config, name)
        if value not in known:
            raise SpecError(f"{name} is {value!r}; {did_you_mean(str(value), known)}")


def check_counts(config: Any, *names: str) -> None:
    """Check that fields of a configuration are whole numbers of at least 1.

    Args:
        config: The configuration.
        *names: Names of the fields.

    Raises:
        SpecError: A field is no whole number, or below 1.
    """
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or value < 1:
            expected = "at least 1" if isinstance(value, int) else "a whole number"
            raise SpecError(f"{name} is {value!r}; it must be {expected}")


def check_not_negative(config: Any, *names: str) -> None:
    """Check that fields of a configuration are finite numbers of at least 0.

    Args:
        config: The configuration.
        *names: Names of the fields.

    Raises:
        SpecError: A field is negative, infinite or NaN.
    """
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise SpecError(f"{name} is {getattr(config, name)}; it must be at least 0, and finite")


@dataclass(frozen=True)
class TrainingConfig:
    """Training options that every task has.

    Attributes:
        optimizer: "sgd" with momentum 0.9, or "adamw".
        learning_rate: Learning rate per 256 images: the peak is learning_rate * batch_size / 256.
        weight_decay: Weight decay, passed to the optimizer as given.
        batch_size: Images per step, over all processes.
        grad_accum_steps: Micro-batches of a step.
        precision: "fp32"; "bf16" runs the forward pass under autocast; "auto" does so on GPUs with bf16 hardware.
        head_lr_scale: Learning rate of the head, relative to that of the other parameters.
        seed: Seed of the initialization, the order of images, augmentation and dropout.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 1.0
    weight_decay: float = 1e-4
    batch_size: int = 64
    grad_accum_steps: int = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    head_lr_scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SpecError: A value is out of range.
        """
        check_choices(self, {"optimizer": ("sgd", "adamw"), "precision": ("auto", "fp32", "bf16")})
        check_counts(self, "batch_size", "grad_accum_steps")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise SpecError(f"learning_rate is {self.learning_rate}; it must be above 0")
        check_not_negative(self, "weight_decay", "head_lr_scale")
        if self.seed < 0:
            raise SpecError(f"seed is {self.seed}; it must be at least 0")
        if self.grad_accum_steps > self.batch_size:
            raise SpecError(
                f"grad_accum_steps is {self.grad_accum_steps}, more than batch_size {self.batch_size}; a micro-batch "
                "needs an image, so give at most the batch size"
            )

    @property
    def peak_lr(self) -> float:
        """The highest learning rate of the optimizer: learning_rate * batch_size / 256."""
        return self.learning_rate * self.batch_size / 256

    def make_optimizer(
        self, parameters: Sequence[nn.Parameter], head: Sequence[nn.Parameter] = ()
    ) -> torch.optim.Optimizer:
        """Return the optimizer, with a learning rate of 0 until `set_lr` is called.

        Args:
            parameters: All trainable parameters.
            head: Those of them that belong to the head and learn at `head_lr_scale` times the rate. Default: none.

        Returns:
            An SGD or AdamW optimizer with a parameter group for the head.
        """
        head_ids = {id(weight) for weight in head}
        groups = [
            {"params": [weight for weight in parameters if id(weight) not in head_ids], "lr_scale": 1.0},
            {"params": [weight for weight in parameters if id(weight) in head_ids], "lr_scale": self.head_lr_scale},
        ]
        groups = [group for group in groups if group["params"]]
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=0.0, momentum=0.9, weight_decay=self.weight_decay)
        return torch.optim.AdamW(groups, lr=0.0, weight_decay=self.weight_decay)

    @staticmethod
    def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
        """Set the learning rate of every parameter group.

        Args:
            optimizer: An optimizer of `make_optimizer`.
            lr: Learning rate of the step, which each group scales by its own factor.
        """
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def use_bf16(self, device: torch.device) -> bool:
        """Return True if the forward pass runs in bf16.

        Args:
            device: Device of the model.

        Returns:
            True for "bf16", and for "auto" on a GPU with bf16 hardware.
        """
        if self.precision == "auto":
            return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return self.precision == "bf16"


_COMMON_OPTIONS = frozenset(option.name for option in fields(TrainingConfig))


@dataclass(frozen=True)
class TaskOptions:
    """Base of the options for data and model that only one task has."""


@dataclass(frozen=True)
class TaskConfig(ABC):
    """Base of the training configurations of tasks: the common options, and beside them those of one task.

    Attributes:
        training: Options that every task has.
        task: Name of the task.
        options_class: Class of the task's options for data and model.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)

    task: ClassVar[str]
    options_class: ClassVar[type[TaskOptions]]

    @property
    @abstractmethod
    def augment(self) -> str:
        """Name of the augmentation."""

    @property
    @abstractmethod
    def num_epochs(self) -> int:
        """Number of epochs: passes over the data, or evaluation intervals. Each ends with a checkpoint."""

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
        own = {name: value for name, value in options.items() if name not in _COMMON_OPTIONS}
        common = {name: value for name, value in options.items() if name in _COMMON_OPTIONS}
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
