"""Full fine-tuning: every weight of the backbone trains (paper, section 4, baseline "Full")."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vpt.backbones.layout import BackboneLayout
from vpt.methods.base import Injection, Method


@dataclass(frozen=True)
class Full(Method, name="full", optimizer="adamw", learning_rate=5e-4, identity_at_init=True):
    """Everything trains. The tuned file holds a whole backbone."""

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan to train every parameter of the trunk."""
        return Injection(trainable=("",))
