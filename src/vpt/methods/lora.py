"""LoRA: low-rank changes of linear layers (Hu et al., ICLR 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError
from vpt.methods.base import Injection, Method
from vpt.methods.mergeable import Mergeable


@dataclass(frozen=True)
class LoRA(Method, name="lora", optimizer="adamw", learning_rate=2e-3, identity_at_init=True):
    """W + (alpha / rank) * B A, with A (rank, in) random and B (out, rank) zero at first.

    targets: "attention" (queries, keys, values and output projection), "mlp", or "all" linear layers of every block.
    Can be merged into plain weights.
    """

    rank: int = 8
    alpha: float = 8.0
    targets: Literal["attention", "mlp", "all"] = "attention"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise SpecError(f"rank is {self.rank}; it must be at least 1")
        if self.alpha <= 0:
            raise SpecError(f"alpha is {self.alpha}; it must be above 0")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan a low-rank update for every linear layer that `targets` names."""
        paths = layout.block_linears(trunk, self.targets)
        return Injection(wrappers=dict.fromkeys(paths, partial(_LoRALinear, method=self)))


class _LoRALinear(Mergeable):
    """Stands where a linear layer stood."""

    def __init__(self, layer: nn.Module, method: LoRA) -> None:
        super().__init__(layer)
        outputs, inputs = self.layer.weight.shape
        self.down = nn.Parameter(torch.empty(method.rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, method.rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)
        self.scale = method.alpha / method.rank

    @property
    def weight(self) -> Tensor:
        return self.layer.weight + self.scale * (self.up @ self.down).to(self.layer.weight.dtype)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.scale * F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))  # type: ignore[no-any-return]
