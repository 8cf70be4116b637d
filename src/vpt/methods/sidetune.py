"""Side-tuning: a small network beside the frozen one (Zhang et al., ECCV 2020; paper, section 4, "Sidetune")."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vpt.backbones.layout import BackboneLayout
from vpt.backbones.side_network import side_network
from vpt.methods.base import NETWORK, Injection, Method


@dataclass(frozen=True)
class SideTune(Method, name="sidetune", learning_rate=0.1):
    """sigmoid(a) * f + (1 - sigmoid(a)) * s: f the frozen feature, s the side network's, a learned from 0.

    network: "alexnet", as in the paper, or any timm name. pretrained: begin at the network's published weights, which
    are fetched; else at random. Everything of the side network trains, with a projection of its feature to d.
    """

    network: str = "alexnet"
    pretrained: bool = False

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Build the side network, and plan to blend its features with those of the frozen network."""
        side, width = side_network(self.network, layout.preprocessing.size, self.pretrained)
        side_tuned = partial(_SideTuned, side=side, projection=nn.Linear(width, layout.feature_width))
        return Injection(wrappers={NETWORK: side_tuned})


class _SideTuned(nn.Module):
    """Stands where the network from images to features stood."""

    def __init__(self, network: nn.Module, side: nn.Module, projection: nn.Linear) -> None:
        super().__init__()
        self.network = network
        self.side = side
        self.projection = projection
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        frozen = self.network(images)
        return torch.lerp(self.projection(self.side(images)).to(frozen.dtype), frozen, torch.sigmoid(self.alpha))
