"""Oracles of KMnP/vpt, the official code of the paper: frames and baselines on a ResNet and a ConvNeXt.

python scripts/oracles/official_convnets.py --repo CLONE --commit SHA
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from authors import AttributeDict, draw_images, perturb, record
from official import official_authors, official_config
from torch import nn

SIZE = 32
DIMS = (4, 4, 4, 8)


def tiny_resnet(pretrained: bool) -> Any:
    """The ResNet of timm, for torchvision's has no narrow one; with the names of torchvision."""
    model = timm.create_model("resnet18", pretrained=False, num_classes=0, layers=(1, 1, 1, 2), channels=DIMS)
    model.relu, model.avgpool = model.act1, nn.AdaptiveAvgPool2d(1)
    return model


def build(kind: str, config: AttributeDict) -> Any:
    """The official model with its head and its choice of learned parameters, but of tiny sizes."""
    from src.models import convnext, resnet
    from src.models.convnext_backbone.convnext import ConvNeXt as Backbone

    config.DATA.CROPSIZE = SIZE
    if kind == "convnext":
        convnext.convnext_tiny = lambda pretrained: Backbone(depths=[1, 1, 1, 2], dims=DIMS)
        convnext.FEAT2DIM["tiny"] = DIMS[-1]
        config.DATA.FEATURE = "imagenet_sup_rnx_tiny"
        model = convnext.ConvNeXt(config)
    else:

        class TinyResNet(resnet.ResNet):
            def get_outputdim(self) -> int:
                return DIMS[-1]

        resnet.models.resnet18 = tiny_resnet
        config.DATA.FEATURE = "imagenet_sup_rn18"
        model = TinyResNet(config)
    perturb(model)
    return model.eval()


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "resnet_partial_0": ("resnet", "partial-0", {}),
    "resnet_partial_1": ("resnet", "partial-1", {}),
    "resnet_pad": ("resnet", "prompt", {"LOCATION": "pad"}),
    "convnext_partial_0": ("convnext", "partial-0", {}),
    "convnext_full": ("convnext", "end2end", {}),
    "convnext_pad": ("convnext", "prompt", {"LOCATION": "pad"}),
}


def main() -> None:
    authors = official_authors()
    for name, (kind, transfer_type, options) in CASES.items():
        model = build(kind, official_config(transfer_type, **options))
        authors.save(f"official_{name}", record(model, draw_images(SIZE)), case=[transfer_type, options])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
