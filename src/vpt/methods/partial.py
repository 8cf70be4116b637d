"""Partial-k: the last k blocks train (paper, section 4, baseline "Partial-k")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from vpt.backbones.layout import Sites
from vpt.errors import FitError, SpecError
from vpt.methods.base import Method, Plan


@dataclass(frozen=True)
class Partial(Method):
    """The last `k` blocks train, and the norm after them; what lies before stays frozen."""

    name: ClassVar[str] = "partial"
    optimizer: ClassVar[Literal["sgd", "adamw"]] = "adamw"
    learning_rate: ClassVar[float] = 5e-4
    neutral: ClassVar[bool] = True

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SpecError(f"k is {self.k}; at least one block must train (the head alone: `linear`)")

    def plan(self, trunk: nn.Module, sites: Sites) -> Plan:
        if not sites.blocks:
            raise FitError(f"the blocks of {type(trunk).__name__} are not known")
        if self.k > len(sites.blocks):
            raise FitError(
                f"k is {self.k}, but there are {len(sites.blocks)} blocks (all of them and the rest: `full`)"
            )
        return Plan(trains=(*sites.blocks[-self.k :], *sites.norms))
