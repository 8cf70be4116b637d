"""Full fine-tuning: every weight of the backbone trains (paper, section 4, baseline "Full")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from vpt.backbones.layout import BackboneLayout
from vpt.methods.base import Injection, Method


@dataclass(frozen=True)
class Full(Method):
    """Everything trains. The tuned file holds a whole backbone."""

    name: ClassVar[str] = "full"
    optimizer: ClassVar[Literal["sgd", "adamw"]] = "adamw"
    learning_rate: ClassVar[float] = 5e-4
    identity_at_init: ClassVar[bool] = True

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan to train every parameter of the trunk."""
        return Injection(trainable=("",))
