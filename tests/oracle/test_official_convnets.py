"""The ResNet and the ConvNeXt of the official code, KMnP/vpt: features, logits and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import timm
from oracle_files import assert_equal_to_oracle, attach_with_weights, read_oracle
from oracle_names import normalized_frame, official_convnet
from torch import nn

METHODS = {
    "resnet_partial_0": "partial(k=1)",
    "resnet_partial_1": "partial(k=2)",  # their "partial-1" trains the whole last stage, here of two blocks
    "convnext_partial_0": "partial(k=1)",
    "convnext_full": "full",
}


def tiny_convnet(name: str) -> nn.Module:
    """The timm model of the authors' tiny ResNet or ConvNeXt."""
    sizes: dict[str, Any] = {"depths": (1, 1, 1, 2), "dims": (4, 4, 4, 8)}
    if name.startswith("convnext"):
        return timm.create_model("convnext_tiny", pretrained=False, num_classes=0, **sizes)
    return timm.create_model(
        "resnet18", pretrained=False, num_classes=0, layers=sizes["depths"], channels=sizes["dims"]
    )


@pytest.mark.parametrize("name", METHODS)
def test_method_on_convnet_equals_official_code(name: str) -> None:
    oracle = read_oracle(f"official_{name}")
    weights = official_convnet(oracle.group("weights"))
    model = attach_with_weights(tiny_convnet(name), METHODS[name], weights, size=32)
    assert_equal_to_oracle(model, oracle, official_convnet(oracle.group("gradients")))


@pytest.mark.parametrize("name", ["resnet_pad", "convnext_pad"])
def test_frame_on_convnet_equals_official_code(name: str) -> None:
    oracle = read_oracle(f"official_{name}")
    groups = (official_convnet(oracle.group(group)) for group in ("weights", "gradients"))
    weights, gradients = normalized_frame(*groups)
    method = "vpt(length=2, depth=shallow, location=pad)"
    model = attach_with_weights(tiny_convnet(name), method, weights, size=32)
    assert_equal_to_oracle(model, oracle, gradients)
