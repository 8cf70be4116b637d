"""The Swin of the official code, KMnP/vpt: features, logits and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import timm
from oracle_files import assert_equal_to_oracle, attach_with_weights, read_oracle
from oracle_names import official_swin
from torch import nn

# The file's gradients are float32: those of float64 differ by up to 6e-5 in the first layers, whose norms have three
# channels, and processors round in other ways.
GRADIENT_TOLERANCE = 1e-4
METHODS = {
    "linear": "linear",
    "partial_1": "partial(k=1)",
    "partial_2": "partial(k=2)",
    "partial_4": "partial(k=4)",
    "bias": "bias(rel_pos_bias=true)",
    "full": "full",
    "vpt_deep": "vpt(length=2, pool_prompts=true)",
    "vpt_deep_bias": "vpt(length=2, pool_prompts=true) + bias(rel_pos_bias=true)",
    "vpt_shallow": "vpt(length=2, depth=shallow, pool_prompts=true)",  # an image a batch, as theirs mixes images
}


def tiny_swin(**options: Any) -> nn.Module:
    """The timm model of the authors' tiny Swin."""
    stages = {"embed_dim": 3, "depths": (2, 1, 2, 2), "num_heads": (1, 2, 2, 2), "window_size": 2, "mlp_ratio": 1}
    sizes = {"img_size": 32, "patch_size": 2, "num_classes": 0, **stages, **options}
    return timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, **sizes)


@pytest.mark.parametrize("name", METHODS)
def test_method_on_swin_equals_official_code(name: str) -> None:
    oracle = read_oracle(f"official_swin_{name}")
    model = attach_with_weights(tiny_swin(), METHODS[name], official_swin(oracle.group("weights")))
    gradients = official_swin(oracle.group("gradients"))
    assert_equal_to_oracle(model, oracle, gradients, gradient_tolerance=GRADIENT_TOLERANCE)
