"""The ViTs of MAE and MoCo v3 in the official code, KMnP/vpt: features, logits and gradients."""

from __future__ import annotations

import pytest
from oracle_files import assert_equal_to_oracle, attach_with_weights, read_oracle, tiny_vit
from oracle_names import timm_vit

# Their MAE pools what stands behind the class token, prompts included.
CASES = {
    "mae_shallow": "vpt(length=2, depth=shallow, output=global_mean)",
    "mae_deep": "vpt(length=2, output=global_mean)",
    "mae_deep_image_mean": "vpt(length=2)",
    "moco_shallow": "vpt(length=2, depth=shallow)",
    "moco_deep": "vpt(length=2)",
    "mae_bias": "bias",
}


@pytest.mark.parametrize("name", CASES)
def test_method_equals_official_code(name: str) -> None:
    oracle = read_oracle(f"official_{name}")
    module = tiny_vit(global_pool="avg", fc_norm=True) if name.startswith("mae") else tiny_vit()
    model = attach_with_weights(module, CASES[name], timm_vit(oracle.group("weights")))
    assert_equal_to_oracle(model, oracle, timm_vit(oracle.group("gradients")))
