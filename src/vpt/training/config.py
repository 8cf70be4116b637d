"""Options of training that every task has, and the check of configurations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from vpt.core.text import did_you_mean
from vpt.errors import SpecError
from vpt.training.block_rates import parse_block_rates

MAX_INT = 2**63 - 1  # torch's generators and NumPy's arrays hold no larger numbers
_CLASSES: dict[Any, Any] = {
    int: Integral, float: Real, bool: (bool, np.bool_), str: str, Path: (str, Path), NoneType: NoneType,
}  # fmt: skip
_KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", Path: "a path"}
_type_hints = cache(get_type_hints)  # of the classes below; plans have thousands of configurations


def check_options(config: Any, **minimums: int) -> None:
    """Check the values of a configuration: choices by their type, a `Literal`, and numbers by their least value.

    Args:
        config: The configuration, a dataclass.
        **minimums: Least value of each number. Numbers are finite, and whole if their type is `int`.

    Raises:
        SpecError: A field has another value.
    """
    for name, hint in _type_hints(config.__class__).items():
        if get_origin(hint) is ClassVar:
            continue
        value, parts = getattr(config, name, None), _parts(hint)
        if not any(_accepts(part, value) for part in parts):
            choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
            kinds = [_KINDS[part] for part in parts if part in _KINDS]
            reason = f"it must be {' or '.join(kinds)}" if kinds else did_you_mean(str(value), choices)
            raise SpecError(f"{name} is {value!r}; {reason}")
        if int in parts and isinstance(value, Integral) and int(value) > MAX_INT:
            raise SpecError(f"{name} is {value}; it must be at most {MAX_INT}, a number of 63 bits")
        if name in minimums and not minimums[name] <= getattr(config, name) < math.inf:
            expected = f"at least {minimums[name]}" + ("" if hint is int else ", and finite")
            raise SpecError(f"{name} is {value!r}; it must be {expected}")


def _parts(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the type itself."""
    return get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else (hint,)


def _accepts(hint: Any, value: Any) -> bool:
    """Return whether a value is of a type; True for types other than those of numbers, texts and choices."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is float and isinstance(value, bool):
        return False
    return isinstance(value, _CLASSES[hint]) if hint in _CLASSES else True


@dataclass(frozen=True)
class TrainingConfig:
    """Training options that every task has.

    Attributes:
        optimizer: "sgd" with momentum 0.9, or "adamw".
        learning_rate: Learning rate per 256 images: the peak is learning_rate * batch_size / 256. With fewer training
            images than batch_size, it is learning_rate * images / 256.
        weight_decay: Weight decay, passed to the optimizer as given.
        decay: The tensors that weight decay is for. "matrices": those of at least two dimensions, so no biases, norms,
            scales or gates. "official": as in the paper's code, with AdamW all without "bias" in their names, with SGD
            all but the bias of the last layer; the scales of `ssf`, which it lacks, do not decay. "all": all.
        batch_size: Images per step, over all processes.
        grad_accum_steps: Micro-batches of a step.
        precision: "fp32"; "bf16" runs the forward pass under autocast; "auto" does so on GPUs with bf16 hardware.
        head_lr_scale: Learning rate of the head, relative to that of the other parameters.
        seed: Seed of the initialization, the order of images, augmentation and dropout.
        ema: Decay of an exponential moving average of the weights, which is scored and saved instead of them; 0 for
            none. It is timm's `ModelEmaV3` with its warm-up, so that short trainings forget the initial weights.
        patience: Evaluations on val without a better metric after which training stops; 0 for none.
        layer_decay: Learning rate of a layer of the backbone, relative to that of the next one; 1 for one rate. For
            methods that train in the backbone, as timm's `param_groups_layer_decay`.
        block_rates: Ranges of blocks with the factor of their learning rate, such as "stem=0, 1-6=0, 7-12=0.1", see
            `vpt.training.block_rates.parse_block_rates`; None for one rate. For methods that train in the backbone.
        keep: "last" keeps the weights of the last step, "best" those of the epoch with the best metric on val.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 1.0
    weight_decay: float = 1e-4
    decay: Literal["matrices", "official", "all"] = "matrices"
    batch_size: int = 64
    grad_accum_steps: int = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    head_lr_scale: float = 1.0
    seed: int = 0
    ema: float = 0.0
    patience: int = 0
    layer_decay: float = 1.0
    block_rates: str | None = None
    keep: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SpecError: A value is out of range.
        """
        check_options(self, batch_size=1, grad_accum_steps=1, weight_decay=0, head_lr_scale=0, seed=0, patience=0)
        if not 0 < self.layer_decay <= 1:
            raise SpecError(f"layer_decay is {self.layer_decay}; it must be above 0, and 1 for one rate, such as 0.75")
        if self.block_rates is not None:
            parse_block_rates(self.block_rates)
            if self.layer_decay < 1:
                raise SpecError(
                    f"block_rates is {self.block_rates!r} and layer_decay is {self.layer_decay}, and both set the "
                    "rates of blocks; leave one out"
                )
        if not 0 <= self.ema < 1:
            raise SpecError(f"ema is {self.ema}; it must be 0 for none, or below 1, such as 0.999")
        if not 0 < self.learning_rate < math.inf:
            raise SpecError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if self.grad_accum_steps > self.batch_size:
            raise SpecError(
                f"grad_accum_steps is {self.grad_accum_steps}, more than batch_size {self.batch_size}; a micro-batch "
                "needs an image, so give at most the batch size"
            )

    @property
    def needs_val(self) -> bool:
        """True if the metric on val decides which weights are kept, or how long training takes."""
        return self.patience > 0 or self.keep == "best"

    @property
    def peak_lr(self) -> float:
        """The highest learning rate of the optimizer: learning_rate * batch_size / 256."""
        return self.learning_rate * self.batch_size / 256

    def lr_factor(self, images: int) -> float:
        """Return the factor of all learning rates where a step has fewer images than `batch_size`.

        Args:
            images: Images of the largest step.

        Returns:
            The share of the batch, at most 1.
        """
        return min(1.0, images / self.batch_size)

    def decaying(self, parameters: Mapping[str, Tensor], head: Sequence[Tensor] = ()) -> set[str]:
        """Return the names of the parameters that weight decay is for.

        Args:
            parameters: Trainable parameters by their names in a tuned file.
            head: Those of them that belong to the head, the bias of its last layer last. Default: none.

        Returns:
            Their names.
        """

        def decays(name: str, weight: Tensor) -> bool:
            of_ssf = name.endswith((".gamma", ".beta")) and not name.startswith("backbone.")
            if self.decay != "official" or of_ssf:
                return self.decay == "all" or weight.dim() > 1
            return "bias" not in name if self.optimizer == "adamw" else not any(weight is last for last in head[-1:])

        return {name for name, weight in parameters.items() if decays(name, weight)}

    def make_optimizer(
        self,
        parameters: Mapping[str, nn.Parameter],
        head: Sequence[nn.Parameter] = (),
        lr_scales: Mapping[str, float] | None = None,
    ) -> Optimizer:
        """Return the optimizer, with a learning rate of 0 until `set_lr` is called.

        Args:
            parameters: All trainable parameters by their names in a tuned file.
            head: Those of them that belong to the head and learn at `head_lr_scale` times the rate. Default: none.
            lr_scales: Learning rate of each parameter, relative to the peak's. Default: 1.

        Returns:
            An SGD or AdamW optimizer with parameter groups by learning rate and weight decay.
        """
        head_ids, decaying = {id(weight) for weight in head}, self.decaying(parameters, head)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, weight in parameters.items():
            lr_scale = (lr_scales or {}).get(name, 1.0) * (self.head_lr_scale if id(weight) in head_ids else 1.0)
            groups.setdefault((lr_scale, self.weight_decay * (name in decaying)), []).append(weight)
        options = [{"params": group, "lr_scale": scale, "weight_decay": x} for (scale, x), group in groups.items()]
        return SGD(options, lr=0.0, momentum=0.9) if self.optimizer == "sgd" else AdamW(options, lr=0.0)

    @staticmethod
    def set_lr(optimizer: Optimizer, lr: float) -> None:
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
