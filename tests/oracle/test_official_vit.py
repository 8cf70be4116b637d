"""The ViT of the official code, KMnP/vpt: every method and ablation that it has, in features, logits and gradients."""

from __future__ import annotations

import pytest
from oracle_files import (
    assert_equal_to_oracle,
    attach_with_weights,
    read_oracle,
    replayed_dropout,
    tiny_vit,
)
from oracle_names import normalized_frame, official_channels, official_pixel_patches, official_vit
from torch import nn

METHODS = {
    "linear": "linear",
    "mlp": "mlp(layers=3)",
    "partial": "partial(k=1)",
    "bias": "bias",
    "full": "full",
    "adapter": "adapter(reduction=4)",
    "class_token": "class_token",
    "vpt_shallow": "vpt(length=2, depth=shallow)",
    "vpt_deep": "vpt(length=2)",
    "vpt_deep_bias": "vpt(length=2) + bias",
    "vpt_deep_class_token": "vpt(length=2) + class_token",
    "vpt_deep_frozen": "vpt(length=2, frozen=true)",
    "vpt_deep_projection": "vpt(length=2, projection=6)",
    "add": "vpt(location=add, depth=shallow)",
    "add_deep": "vpt(location=add)",
    "add_1_deep": "vpt(location=add_1)",
    "image_mean": "vpt(length=2, output=image_mean)",
    "prompt_mean": "vpt(length=2, output=prompt_mean)",
    "global_mean": "vpt(length=2, output=global_mean)",
}
TRAIN_MODE = {
    "full": "full(dropout=0.1)",
    "adapter": "adapter(reduction=4)",  # their frozen encoder, adapters included, runs without dropout
    "vpt_deep": "vpt(length=2, dropout=0.1)",
    "vpt_deep_projection": "vpt(length=2, dropout=0.1, projection=6)",
}


@pytest.mark.parametrize("name", METHODS)
def test_method_equals_official_code(name: str) -> None:
    oracle = read_oracle(f"official_{name}")
    model = attach_with_weights(tiny_vit(), METHODS[name], official_vit(oracle.group("weights")))
    assert_equal_to_oracle(model, oracle, official_vit(oracle.group("gradients")))


@pytest.mark.parametrize("name", TRAIN_MODE)
def test_method_in_train_mode_equals_official_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = read_oracle(f"official_{name}_train")
    model = attach_with_weights(tiny_vit(), TRAIN_MODE[name], official_vit(oracle.group("weights"))).train()
    with replayed_dropout(oracle, monkeypatch):
        assert_equal_to_oracle(model, oracle, official_vit(oracle.group("gradients")))


def test_depth_range_equals_official_code() -> None:
    """Three blocks, of which the first two have prompts of their own; the last prompts travel on."""
    oracle = read_oracle("official_depth_1_2")
    weights = official_vit(oracle.group("weights"))
    model = attach_with_weights(tiny_vit(depth=3), 'vpt(length=2, depth="1-2")', weights)
    assert_equal_to_oracle(model, oracle, official_vit(oracle.group("gradients")))


def test_dropped_prompts_equal_official_code() -> None:
    """As above, but behind the second block the prompts are dropped."""
    oracle = read_oracle("official_depth_1_2_removed")
    weights = official_vit(oracle.group("weights"))
    model = attach_with_weights(tiny_vit(depth=3), 'vpt(length=2, depth="1-2", drop_after=true)', weights)
    assert_equal_to_oracle(model, oracle, official_vit(oracle.group("gradients")))


def test_sidetune_equals_official_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official code with one convolution of 256 channels in the place of AlexNet, which reads no images of 8 px."""
    oracle = read_oracle("official_sidetune")
    side = nn.Sequential(nn.Conv2d(3, 256, 3), nn.ReLU(), nn.Flatten())
    monkeypatch.setattr("vpt.methods.sidetune.side_network", lambda *_: (side, 9216))
    model = attach_with_weights(tiny_vit(embed_dim=4), "sidetune", official_vit(oracle.group("weights")))
    assert_equal_to_oracle(model, oracle, official_vit(oracle.group("gradients")))


def test_shared_prompts_equal_official_code() -> None:
    """Their model has further prompts here, trained parameters that nothing reads."""
    oracle = read_oracle("official_shared_blocks")
    weights = oracle.group("weights")
    del weights["enc.transformer.deep_prompt_embeddings"]
    model = attach_with_weights(tiny_vit(), "vpt(length=2, shared=blocks)", official_vit(weights))
    assert_equal_to_oracle(model, oracle, official_vit(oracle.group("gradients")))


def test_pixel_patches_equal_official_code() -> None:
    oracle = read_oracle("official_prepend_pixel")
    weights = official_pixel_patches(oracle.group("weights"))
    model = attach_with_weights(tiny_vit(), "vpt(length=2, depth=shallow, location=prepend_pixel)", weights)
    assert_equal_to_oracle(model, oracle, official_pixel_patches(oracle.group("gradients")))


def test_further_channels_equal_official_code() -> None:
    oracle = read_oracle("official_concat_channel")
    weights = official_channels(oracle.group("weights"))
    model = attach_with_weights(tiny_vit(), "vpt(length=2, depth=shallow, location=concat_channel)", weights)
    assert_equal_to_oracle(model, oracle, official_channels(oracle.group("gradients")))


def test_frame_equals_official_code() -> None:
    """Images of 8 px in a frame of 2 px: a ViT of 12 px reads both."""
    oracle = read_oracle("official_pad")
    weights, gradients = normalized_frame(*(official_vit(oracle.group(name)) for name in ("weights", "gradients")))
    model = attach_with_weights(tiny_vit(img_size=12), "vpt(length=2, depth=shallow, location=pad)", weights)
    assert_equal_to_oracle(model, oracle, gradients)
