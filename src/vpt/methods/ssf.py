"""SSF: scale and shift the output of every layer (Lian et al., NeurIPS 2022)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vpt.backbones.layout import BackboneLayout, is_norm
from vpt.errors import UnsupportedError
from vpt.methods.base import Injection, Method
from vpt.methods.mergeable import Mergeable


@dataclass(frozen=True)
class SSF(Method, name="ssf", optimizer="adamw", learning_rate=2e-3, identity_at_init=True):
    """A learned scale and shift of each channel after every layer that has a bias: gamma * layer(x) + beta.

    The layers are linear layers, convolutions and norms. Can be merged into plain weights.
    """

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan a scale and a shift after every layer that has a bias; raise UnsupportedError if there is none."""
        wrappers = {path: _ScaledLayer for path, layer in trunk.named_modules() if _supports_ssf(layer)}
        if not wrappers:
            raise UnsupportedError("none of its layers has a bias, which takes the shift")
        return Injection(wrappers=dict(wrappers))


def _supports_ssf(layer: nn.Module) -> bool:
    """Layers that can take the shift up into a bias, when merged."""
    known = isinstance(layer, (nn.Linear, nn.Conv2d)) or is_norm(layer)
    return known and all(isinstance(getattr(layer, name, None), nn.Parameter) for name in ("weight", "bias"))


class _ScaledLayer(Mergeable):
    """Replacement of a layer, with a scale and a shift."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        channels = self.layer.weight.shape[0]
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.layer.weight
        return weight * self.gamma.to(weight.dtype).view(-1, *(1,) * (weight.dim() - 1))

    @property
    def bias(self) -> Tensor | None:
        bias: Tensor = self.layer.bias
        return bias * self.gamma.to(bias.dtype) + self.beta.to(bias.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self.layer, "act"):  # timm's norms with an activation, which comes after scale and shift
            return functional_call(self.layer, self.merged_state(), (x,))  # type: ignore[no-any-return]
        out = self.layer(x)
        # Convolutions, and the norms between them, have their channels second.
        channel_shape = (-1, 1, 1) if _is_channels_first(self.layer) else (-1,)
        gamma, beta = (weight.to(out.dtype).view(channel_shape) for weight in (self.gamma, self.beta))
        return out * gamma + beta  # type: ignore[no-any-return]


def _is_channels_first(layer: nn.Module) -> bool:
    while isinstance(layer, Mergeable):
        layer = layer.layer
    return isinstance(layer, (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm)) or type(layer).__name__.endswith("2d")
