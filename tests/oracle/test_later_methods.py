"""LoRA, SSF, gated prompts and AdaptFormer: the authors' code of each, in features, logits and gradients."""

from __future__ import annotations

import pytest
import timm
import torch
from oracle_files import (
    assert_equal_to_oracle,
    attach_with_weights,
    read_oracle,
    replayed_dropout,
    tiny_vit,
)
from oracle_names import adaptformer, gated, lora, ssf, swin


@pytest.mark.parametrize("targets", ["attention", "queries_values", "mlp", "all"])
def test_lora_equals_authors_code(targets: str) -> None:
    oracle = read_oracle(f"lora_{targets}")
    model = attach_with_weights(tiny_vit(), f"lora(rank=2, alpha=3, targets={targets})", lora(oracle.group("weights")))
    assert_equal_to_oracle(model, oracle, lora(oracle.group("gradients")))


def test_ssf_on_vit_equals_authors_code() -> None:
    oracle = read_oracle("ssf_vit")
    model = attach_with_weights(tiny_vit(), "ssf", ssf(oracle.group("weights")))
    assert_equal_to_oracle(model, oracle, ssf(oracle.group("gradients")))


def test_ssf_on_swin_equals_authors_code() -> None:
    """Their patch merging has no scale and no shift: it is given a list of modes, and asks whether that is "ssf"."""
    oracle = read_oracle("ssf_swin")
    weights, gradients = (swin(ssf(oracle.group(name))) for name in ("weights", "gradients"))
    merging = "layers.1.downsample.norm"
    weights |= {f"{merging}.gamma": torch.ones(16), f"{merging}.beta": torch.zeros(16)}
    sizes = {"img_size": 8, "patch_size": 2, "embed_dim": 4, "depths": (2, 2), "num_heads": (1, 2), "window_size": 2}
    module = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, mlp_ratio=1, **sizes)
    model = attach_with_weights(module, "ssf", weights)
    assert_equal_to_oracle(model, oracle, gradients, also_learned=(f"{merging}.gamma", f"{merging}.beta"))


def test_gated_prompts_on_moco_equal_authors_code() -> None:
    oracle = read_oracle("gated_moco")
    model = attach_with_weights(tiny_vit(), "gated(length=2)", gated(oracle.group("weights")))
    assert_equal_to_oracle(model, oracle, gated(oracle.group("gradients")))


def test_gated_prompts_in_train_mode_equal_authors_code(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = read_oracle("gated_moco_train")
    model = attach_with_weights(tiny_vit(), "gated(length=2)", gated(oracle.group("weights"))).train()
    with replayed_dropout(oracle, monkeypatch):
        assert_equal_to_oracle(model, oracle, gated(oracle.group("gradients")))


def test_gated_prompts_on_mae_equal_authors_code() -> None:
    oracle = read_oracle("gated_mae_image_mean")
    weights, gradients = (gated(oracle.group(group)) for group in ("weights", "gradients"))
    for kind in ("weight", "bias"):  # they give timm's final norm the pooled feature
        weights[f"fc_norm.{kind}"] = weights.pop(f"norm.{kind}")
    model = attach_with_weights(tiny_vit(global_pool="avg", fc_norm=True), "gated(length=2)", weights)
    assert_equal_to_oracle(model, oracle, gradients)


def test_adaptformer_equals_authors_code() -> None:
    oracle = read_oracle("adaptformer")
    model = attach_with_weights(tiny_vit(), "adaptformer(bottleneck=3)", adaptformer(oracle.group("weights")))
    assert_equal_to_oracle(model, oracle, adaptformer(oracle.group("gradients")))


def test_adaptformer_in_train_mode_equals_authors_code(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = read_oracle("adaptformer_train")
    model = attach_with_weights(tiny_vit(), "adaptformer(bottleneck=3)", adaptformer(oracle.group("weights"))).train()
    with replayed_dropout(oracle, monkeypatch):
        assert_equal_to_oracle(model, oracle, adaptformer(oracle.group("gradients")))
