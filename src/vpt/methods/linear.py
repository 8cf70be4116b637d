"""Linear probe: only the head trains (paper, section 4, baseline "Linear")."""

from dataclasses import dataclass

from torch import nn

from vpt.backbones.layout import BackboneLayout
from vpt.heads.pooling import PromptFreePool, make_pool
from vpt.methods.base import Injection, Method


@dataclass(frozen=True)
class Linear(Method, name="linear", learning_rate=0.5, identity_at_init=True):
    """A linear classifier on the frozen feature.

    Args:
        output: What it reads: the backbone's "default", "cls", the mean or maximum of the image's tokens ("image_mean",
            "image_max"), or CLS and that mean side by side ("cls_image_mean", 2 d wide: DINOv2's linear evaluation).
            Default: "default".
    """

    output: PromptFreePool = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity_at_init", self.output == "default")  # the dataclass is frozen

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan the pooling that `output` names, and no other change."""
        return Injection(pool=make_pool(self.output, layout, 0), num_pooled=2 if self.output == "cls_image_mean" else 1)
