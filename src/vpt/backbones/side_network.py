"""Small networks that run beside a backbone."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import AlexNet_Weights, alexnet  # type: ignore[import-untyped]

from vpt.backbones.loading import create_model
from vpt.backbones.weights import load_weights
from vpt.data.preprocessing import Preprocessing
from vpt.errors import BackboneError


def side_network(
    name: str, preprocessing: Preprocessing, pretrained: bool, weights: str | None = None
) -> tuple[nn.Module, int]:
    """Images (batch, 3, size, size) -> (batch, k), and k. `name`: "alexnet" (its feature maps), or a timm name.

    weights: file with the weights, for AlexNet in torchvision's layout, in place of those that `pretrained` fetches.
    Raises BackboneError for an unknown name, weights that cannot be fetched, or images too small for the network.
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
