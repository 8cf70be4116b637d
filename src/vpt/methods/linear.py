"""Linear probe: only the head trains (paper, section 4, baseline "Linear")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from vpt.backbones.layout import Sites
from vpt.heads.pooling import Whole, reading
from vpt.methods.base import Method, Plan


@dataclass(frozen=True)
class Linear(Method):
    """A linear classifier on the frozen feature.

    output: what it reads: the backbone's "default", "cls", the mean or maximum of the image's tokens ("image_mean",
    "image_max"), or CLS and that mean side by side ("cls_image_mean", 2 d wide: DINOv2's linear evaluation).
    """

    name: ClassVar[str] = "linear"
    learning_rate: ClassVar[float] = 0.5
    neutral: ClassVar[bool] = True

    output: Whole = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "neutral", self.output == "default")  # the dataclass is frozen

    def plan(self, trunk: nn.Module, sites: Sites) -> Plan:
        return Plan(pool=reading(self.output, sites, 0), features=2 if self.output == "cls_image_mean" else 1)
