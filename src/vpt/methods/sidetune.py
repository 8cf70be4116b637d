"""Side-tuning: a small network beside the frozen one (Zhang et al., ECCV 2020; paper, section 4, "Sidetune")."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights, alexnet  # type: ignore[import-untyped]

from vpt.backbones.layout import BackboneLayout
from vpt.backbones.loading import create_model
from vpt.backbones.weights import load_weights
from vpt.data.preprocessing import Preprocessing
from vpt.errors import BackboneError, SpecError
from vpt.methods.base import NETWORK, Injection, Method


@dataclass(frozen=True)
class SideTune(Method, name="sidetune", learning_rate=0.1):
    """A small network in parallel with the frozen backbone.

    sigmoid(a) * f + (1 - sigmoid(a)) * s: f the frozen feature, s the side network's, a learned from 0.

    Everything of the side network trains, with a projection of its feature to d.

    Args:
        network: "alexnet", as in the paper, or any timm name. Default: "alexnet".
        pretrained: Begin at the network's published weights, which are fetched; else at random. Default: False.
        weights: File of weights to begin at: torchvision's of AlexNet, or timm's. Default: none.
        bias: Bias of the projection; the paper's code has none. Default: False.
    """

    network: str = "alexnet"
    pretrained: bool = False
    weights: str | None = None
    bias: bool = False

    def __post_init__(self) -> None:
        if self.pretrained and self.weights is not None:
            raise SpecError(f"weights is {self.weights!r}, and pretrained is true; keep one of the two")
        if ":" in self.network:  # which a tuned file would make its reader fetch
            raise SpecError(f"network is {self.network!r}; give alexnet, or the name of one of timm's own models")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Build the side network, and plan to blend its features with those of the frozen network."""
        side, width = side_network(self.network, layout.preprocessing, self.pretrained, self.weights)
        projection = nn.Linear(width, layout.feature_width, bias=self.bias)
        return Injection(wrappers={NETWORK: partial(_SideTuned, side=side, projection=projection)})

    def without_initial_weights(self) -> Self:
        """Return a variant whose side network starts from random weights."""
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
        side = self.projection(self.side(images.to(self.projection.weight.dtype)))
        return torch.lerp(side.to(frozen.dtype), frozen, torch.sigmoid(self.alpha))


def side_network(
    name: str, preprocessing: Preprocessing, pretrained: bool, weights: str | None = None
) -> tuple[nn.Module, int]:
    """Return a network from images (batch, 3, size, size) to features (batch, k), and k.

    Args:
        name: "alexnet", whose feature maps are read, or a timm name.
        preprocessing: Preprocessing of the images.
        pretrained: Begin at the published weights, which are fetched.
        weights: File with weights instead, for AlexNet in torchvision's layout. Default: none.

    Returns:
        The network, and the width of its features.

    Raises:
        BackboneError: The name is unknown, weights cannot be fetched, or the images are too small.
    """
    network: Any
    size = preprocessing.size
    if name == "alexnet":
        try:
            network = alexnet(weights=AlexNet_Weights.IMAGENET1K_V1 if pretrained else None)
        except OSError as error:  # what torch.hub raises without a network
            advice = "give a file, weights=..., or leave pretrained out"
            raise BackboneError(f"the weights of alexnet could not be fetched ({error}); {advice}") from error
        network.classifier = nn.Identity()
    else:
        network = create_model(name, size, pretrained)
    if weights is not None:
        load_weights(network, Path(weights))
    if name == "alexnet":
        network = nn.Sequential(network.features, nn.Flatten())
    image = torch.zeros(1, preprocessing.channels, size, size, device=next(network.parameters()).device)
    try:
        with torch.no_grad():
            features = network.eval()(image)
    except RuntimeError as error:
        raise BackboneError(
            f"{name} cannot read images of {size} px ({error}); choose a side network that can"
        ) from error
    return network, int(features.shape[1])
