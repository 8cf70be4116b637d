"""Side-tuning: a small network beside the frozen one (Zhang et al., ECCV 2020; paper, section 4, "Sidetune")."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from vpt.backbones.layout import BackboneLayout
from vpt.backbones.side_network import side_network
from vpt.errors import SpecError
from vpt.methods.base import NETWORK, Injection, Method


@dataclass(frozen=True)
class SideTune(Method, name="sidetune", learning_rate=0.1):
    """sigmoid(a) * f + (1 - sigmoid(a)) * s: f the frozen feature, s the side network's, a learned from 0.

    network: "alexnet", as in the paper, or any timm name. pretrained: begin at the network's published weights, which
    are fetched; else at random. weights: begin at those of a file: torchvision's of AlexNet, or timm's. bias: of the
    projection; the paper's code has none. Everything of the side network trains, with a projection of its feature to d.
    """

    network: str = "alexnet"
    pretrained: bool = False
    weights: str | None = None
    bias: bool = False

    def __post_init__(self) -> None:
        if self.pretrained and self.weights is not None:
            raise SpecError(f"weights is {self.weights!r}, and pretrained is true; keep one of the two")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Build the side network, and plan to blend its features with those of the frozen network."""
        side, width = side_network(self.network, layout.preprocessing, self.pretrained, self.weights)
        projection = nn.Linear(width, layout.feature_width, bias=self.bias)
        return Injection(wrappers={NETWORK: partial(_SideTuned, side=side, projection=projection)})

    def without_initial_weights(self) -> Self:
        """Return this method with a side network that begins at random."""
        return replace(self, pretrained=False, weights=None)


class _SideTuned(nn.Module):
    """Replacement of the network from images to features."""

    def __init__(self, network: nn.Module, side: nn.Module, projection: nn.Linear) -> None:
        super().__init__()
        self.network = network
        self.side = side
        self.projection = projection
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        frozen = self.network(images)
        return torch.lerp(self.projection(self.side(images)).to(frozen.dtype), frozen, torch.sigmoid(self.alpha))
