"""BitFit: only the biases train (Ben Zaken et al., 2022; paper, section 4, baseline "Bias")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from vpt.backbones.layout import Sites
from vpt.errors import FitError
from vpt.methods.base import Method, Plan

# What torch's and timm's layers call what they add: a linear layer's own, and attention's, kept apart from it.
_BIASES = ("bias", "q_bias", "k_bias", "v_bias")
_TABLE = "relative_position_bias_table"


@dataclass(frozen=True)
class Bias(Method):
    """Every bias of the backbone trains.

    tables: the tables of relative positions (Swin, BEiT) train too. They are no biases of a layer, but the paper's code
    counts them as such: of its 200,760 on Swin-B they are 63,544.
    """

    name: ClassVar[str] = "bias"
    optimizer: ClassVar[Literal["sgd", "adamw"]] = "adamw"
    learning_rate: ClassVar[float] = 2e-3
    neutral: ClassVar[bool] = True

    tables: bool = False

    def plan(self, trunk: nn.Module, sites: Sites) -> Plan:
        wanted = (*_BIASES, _TABLE) if self.tables else _BIASES
        biases = tuple(
            f"{path}.{key}".lstrip(".")
            for path, module in trunk.named_modules()
            for key, _ in module.named_parameters(recurse=False)
            if key in wanted
        )
        if not biases:
            raise FitError("its layers have no biases")
        return Plan(trains=biases)
