"""CLS tuning: the backbone's class token trains, alone or in a sum such as `vpt + class_token` (paper, appendix)."""

from dataclasses import dataclass

from torch import nn

from vpt.backbones.layout import BackboneLayout
from vpt.errors import UnsupportedError
from vpt.methods.base import Injection, Method


@dataclass(frozen=True)
class ClassToken(Method, name="class_token", optimizer="adamw", learning_rate=0.02, identity_at_init=True):
    """Training of the backbone's class token."""

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan to train the class token; raise UnsupportedError if there is none."""
        if not isinstance(getattr(trunk, "cls_token", None), nn.Parameter):
            raise UnsupportedError("it has no class token by timm's name, cls_token")
        return Injection(trainable=("cls_token",))
