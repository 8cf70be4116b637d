"""A training configuration: every choice of a training run but the data, the backbone and the method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import nn

from vpt.core.text import did_you_mean
from vpt.errors import SpecError
from vpt.methods.base import Method

_CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "augment": ("none", "flip", "random_crop", "random_resized_crop"),
    "precision": ("auto", "fp32", "bf16"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """How to train (paper, section 4 and appendix A).

    optimizer: "sgd" with momentum 0.9, or "adamw"; both use `weight_decay` as given.
    learning_rate: per 256 images; the peak learning rate is learning_rate * batch_size / 256.
    epochs, warmup_epochs: cosine decay to 0 after a linear warm-up, both per iteration, so that the first step
        already learns. batch_size: images per step, over all processes; grad_accum_steps: micro-batches of a step.
    augment: "none" (VTAB-1k); "flip"; "random_crop" (FGVC: a random crop of 7/8 of the side, and flip); "random_resized_crop" (a part
        of half to all the area, resized, and flip: the usual one for linear probes). There, if only the head trains,
        sixteen crops of each image are drawn once and their features kept; each epoch takes one, or the whole image.
        So does the probe of `probe_epochs`, of a head that reads what the backbone's own does.
    probe_epochs: the head first trains alone for this many epochs (SGD, with probe_weight_decay), on features of the
        frozen backbone, computed once, or what else it reads, as it is at first (linear probing, then tuning: Kumar et
        al., ICLR 2022). A good start where few epochs can be afforded; 0 is the paper's protocol.
    head_lr_scale: the head's learning rate, as a share of the rest's: a head that is good already is soon spoilt by steps
        as large as prompts need.
    precision: "bf16" runs the forward pass under autocast; "auto" does so on GPUs that have it in hardware.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 1.0
    weight_decay: float = 1e-4
    epochs: int = 100
    warmup_epochs: float = 10
    batch_size: int = 64
    grad_accum_steps: int = 1
    augment: Literal["none", "flip", "random_crop", "random_resized_crop"] = "none"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    probe_epochs: int = 0
    probe_weight_decay: float = 0.01
    head_lr_scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for field, choices in _CHOICES.items():
            value = getattr(self, field)
            if value not in choices:
                raise SpecError(f"{field} is {value!r}; {did_you_mean(value, choices)}")
        for field in ("epochs", "batch_size", "grad_accum_steps"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                expected = "at least 1" if isinstance(value, int) else "a whole number"
                raise SpecError(f"{field} is {value!r}; it must be {expected}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise SpecError(f"learning_rate is {self.learning_rate}; it must be above 0")
        for field in ("weight_decay", "warmup_epochs", "probe_epochs", "probe_weight_decay", "head_lr_scale"):
            if not 0 <= getattr(self, field) < math.inf:
                raise SpecError(f"{field} is {getattr(self, field)}; it must be at least 0, and finite")
        if self.seed < 0:
            raise SpecError(f"seed is {self.seed}; it must be at least 0")
        if self.grad_accum_steps > self.batch_size:
            raise SpecError(
                f"grad_accum_steps is {self.grad_accum_steps}, more than batch_size {self.batch_size}; a micro-batch needs an "
                "image, so give at most the batch size"
            )

    @classmethod
    def field_names(cls) -> frozenset[str]:
        """The names of the fields that decide how such a configuration trains."""
        return frozenset(field.name for field in fields(cls))

    @classmethod
    def for_method(cls, method: Method, **overrides: Any) -> TrainingConfig:
        """The defaults of a method, and what is chosen instead. None means not chosen."""
        base = cls(optimizer=method.optimizer, learning_rate=method.learning_rate, weight_decay=method.weight_decay)
        given = {name: value for name, value in overrides.items() if value is not None}
        config = replace(base, **given)
        if "warmup_epochs" not in given:  # a tenth, as in the paper (10 of 100)
            config = replace(config, warmup_epochs=min(10.0, config.epochs / 10))
        return config

    def probe_config(self) -> TrainingConfig:
        """How the head trains alone, for `probe_epochs`: on features it costs nothing, so to its end."""
        return replace(
            self,
            optimizer="sgd",
            learning_rate=0.2,
            weight_decay=self.probe_weight_decay,
            epochs=self.probe_epochs,
            warmup_epochs=self.probe_epochs / 10,
            batch_size=64,
            grad_accum_steps=1,
            augment="random_resized_crop" if self.augment == "random_resized_crop" else "none",
            probe_epochs=0,
            head_lr_scale=1.0,
        )

    def lr_at(self, step: int, num_steps: int, steps_per_epoch: int) -> float:
        """The learning rate of iteration `step` (0-based) of `num_steps`."""
        peak = self.learning_rate * self.batch_size / 256
        warmup = min(round(self.warmup_epochs * steps_per_epoch), num_steps - 1)
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup)))

    def make_optimizer(
        self, parameters: Sequence[nn.Parameter], head: Sequence[nn.Parameter] = ()
    ) -> torch.optim.Optimizer:
        """The optimizer over `parameters`, of which `head` learns at its own rate; see `set_lr`."""
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
        """Give each group of `make_optimizer` its share of this step."""
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def use_bf16(self, device: torch.device) -> bool:
        """Whether to run the forward pass in bf16 on this device."""
        if self.precision == "auto":
            return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return self.precision == "bf16"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)
