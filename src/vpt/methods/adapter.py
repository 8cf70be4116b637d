"""Adapters: a bottleneck after each block's MLP (Houlsby et al., 2019; paper, section 4, baseline "Adapter")."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError, UnsupportedError
from vpt.methods.base import Injection, Method


class Bottleneck(nn.Module):
    """Linear d -> d/r, a nonlinearity, Linear d/r -> d. Begins at zero through its second layer, and so can learn."""

    def __init__(self, width: int, hidden_dim: int, activation: nn.Module, *, zero_init: bool = False) -> None:
        super().__init__()
        self.down: nn.Linear = nn.Linear(width, hidden_dim)
        self.activation = activation
        self.up: nn.Linear = nn.Linear(hidden_dim, width)
        if zero_init:
            nn.init.zeros_(self.down.weight)
        else:
            nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        for weight in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the bottleneck for x (..., d), in the shape and dtype of x."""
        hidden = self.activation(_linear_in_input_dtype(x, self.down))
        return _linear_in_input_dtype(hidden, self.up)


def _linear_in_input_dtype(x: Tensor, layer: nn.Linear) -> Tensor:
    """The layer, rounded to what comes in: a frozen backbone may be in bf16."""
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


@dataclass(frozen=True)
class Adapter(Method, name="adapter", optimizer="adamw", learning_rate=2e-3, identity_at_init=True):
    """d -> d/r -> GELU -> d with a skip, after each block's MLP and before its residual.

    reduction: r. init: "identity" begins as the frozen backbone and learns; "zero" sets both projections to zero as
    the paper's code does, so that of every adapter only the last bias ever changes.
    """

    reduction: int = 8
    init: Literal["identity", "zero"] = "identity"

    def __post_init__(self) -> None:
        if self.reduction < 1:
            raise SpecError(f"reduction is {self.reduction}; it must be at least 1")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan a bottleneck after the MLP of every block; raise UnsupportedError if it is narrower than `reduction`."""
        wrappers = {}
        for path, width in layout.block_mlps(trunk).items():
            if self.reduction > width:
                raise UnsupportedError(
                    f"reduction is {self.reduction}, but {path} has only {width} channels; give one of at most {width}"
                )
            bottleneck = Bottleneck(width, width // self.reduction, nn.GELU(), zero_init=self.init == "zero")
            wrappers[path] = partial(_AdaptedMLP, bottleneck=bottleneck)
        return Injection(wrappers=wrappers)


class _AdaptedMLP(nn.Module):
    """Replacement of an MLP, followed by a bottleneck."""

    def __init__(self, mlp: nn.Module, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.mlp = mlp
        self.adapter = bottleneck

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        x = self.mlp(x, *context)
        return x + self.adapter(x)  # type: ignore[no-any-return]
