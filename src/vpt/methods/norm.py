"""Norm tuning: the scales and shifts of all normalization layers train."""

from dataclasses import dataclass

from torch import nn

from vpt.backbones.layout import BackboneLayout, is_norm, parameter_paths
from vpt.errors import UnsupportedError
from vpt.methods.base import Injection, Method


@dataclass(frozen=True)
class Norm(Method, name="norm", optimizer="adamw", learning_rate=2e-3, identity_at_init=True):
    """Weights and biases of LayerNorm, RMSNorm, GroupNorm and BatchNorm train; running statistics stay as they are."""

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan to train the parameters of every normalization layer; raise UnsupportedError if there is none."""
        weights = parameter_paths(trunk, lambda module, _: is_norm(module))
        if not weights:
            raise UnsupportedError("it has no normalization layers with weights")
        return Injection(trainable=weights)
