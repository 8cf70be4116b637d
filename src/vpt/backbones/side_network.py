"""Small networks that run beside a backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision.models import AlexNet_Weights, alexnet  # type: ignore[import-untyped]

from vpt.backbones.loading import create_model
from vpt.errors import BackboneError


def side_network(name: str, size: int, pretrained: bool) -> tuple[nn.Module, int]:
    """Images (batch, 3, size, size) -> (batch, k), and k. `name`: "alexnet" (its feature maps), or a timm name.

    Raises BackboneError for an unknown name, weights that cannot be fetched, or images too small for the network.
    """
    network: Any
    if name == "alexnet":
        try:
            network = nn.Sequential(
                alexnet(weights=AlexNet_Weights.IMAGENET1K_V1 if pretrained else None).features, nn.Flatten()
            )
        except OSError as error:  # what torch.hub raises without a network
            raise BackboneError(
                f"the weights of alexnet could not be fetched ({error}); pretrained=false needs none"
            ) from error
    else:
        network = create_model(name, size, pretrained)
    with torch.no_grad():
        try:
            device = next(network.parameters()).device
            features = network.eval()(torch.zeros(1, 3, size, size, device=device))
        except RuntimeError as error:
            raise BackboneError(
                f"{name} cannot read images of {size} px ({error}); choose a side network that can"
            ) from error
    return network, int(features.shape[1])
