"""Methods that came after the paper: the authors' code of each, in features, logits and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from oracle_files import (
    assert_close,
    assert_equal_to_oracle,
    attach_with_weights,
    read_oracle,
    replayed_dropout,
    tiny_vit,
)
from oracle_names import (
    adapter_plus,
    adaptformer,
    bpt,
    cvpt,
    e2vpt,
    gated,
    llama_adapter,
    lora,
    official_vit,
    renamed,
    ssf,
    swin,
    vapt,
)
from torch import nn

from vpt.methods.lora import LoRA, _LoRALinear
from vpt.methods.prompt_initialization import leave_row_space
from vpt.training import Examples, collect_init_inputs
from vpt.training.attention_means import collect_attention_means


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


def test_cross_prompts_equal_authors_code() -> None:
    oracle = read_oracle("cvpt")
    weights, gradients = (cvpt(oracle.group(name)) for name in ("weights", "gradients"))
    assert_equal_to_oracle(attach_with_weights(tiny_vit(), "cross(length=2)", weights), oracle, gradients)


def test_prompts_of_low_rank_equal_authors_code() -> None:
    oracle = read_oracle("bpt")
    model = attach_with_weights(tiny_vit(), "vpt(length=4, rank=3, dropout=0)", bpt(oracle.group("weights")))
    assert_equal_to_oracle(model, oracle, bpt(oracle.group("gradients")))


def test_zero_initialized_attention_equals_authors_code() -> None:
    oracle = read_oracle("llama_adapter")
    weights, gradients = oracle.group("weights"), oracle.group("gradients")
    vit = tiny_vit(qkv_bias=False, norm_layer=nn.Identity)
    model = attach_with_weights(vit, "vpt(length=2, dropout=0, attention=zero_init)", llama_adapter(weights))
    assert_equal_to_oracle(model, oracle, llama_adapter(gradients, weights))


@pytest.mark.parametrize("percent", [50, 100])
def test_fourier_prompts_equal_authors_code(percent: int) -> None:
    oracle = read_oracle(f"vfpt_{percent}")
    weights, gradients = (
        official_vit(renamed(oracle.group(name), (r"^transformer\.", ""))) for name in ("weights", "gradients")
    )
    model = attach_with_weights(tiny_vit(), f"vpt(length=2, dropout=0, fourier={percent / 100})", weights)
    assert_equal_to_oracle(model, oracle, gradients)


@pytest.mark.parametrize(("name", "shared"), [("e2vpt", "false"), ("e2vpt_shared", "true")])
def test_keys_and_values_equal_authors_code(name: str, shared: str) -> None:
    oracle = read_oracle(name)
    weights, gradients = (e2vpt(oracle.group(group)) for group in ("weights", "gradients"))
    model = attach_with_weights(tiny_vit(), f"prefix(length=2, dropout=0, shared={shared})", weights)
    assert_equal_to_oracle(model, oracle, gradients)


def test_adaptive_prompts_equal_authors_code() -> None:
    oracle = read_oracle("vapt")
    weights, gradients = (vapt(oracle.group(name)) for name in ("weights", "gradients"))
    method = "adaptive(length=2, hidden=2, dropout=0)"
    assert_equal_to_oracle(attach_with_weights(tiny_vit(img_size=56), method, weights), oracle, gradients)


def test_adapter_plus_equals_authors_code() -> None:
    oracle = read_oracle("adapter_plus")
    weights, gradients = (adapter_plus(oracle.group(name)) for name in ("weights", "gradients"))
    method = "adapter(reduction=4, position=post, init=houlsby, scale=channel)"
    assert_equal_to_oracle(attach_with_weights(tiny_vit(), method, weights), oracle, gradients)


@pytest.mark.parametrize("mode", ["mlae", "mlae_train"])
def test_lora_with_rank_dropout_equals_authors_code(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = read_oracle(mode)
    weights, linear = oracle.group("weights"), nn.Linear(6, 4)
    layer = _LoRALinear(linear, LoRA(rank=3, alpha=3, rank_dropout=0.5)).train(mode == "mlae_train")
    own = {"layer.weight": weights["weight"], "layer.bias": weights["bias"], "down": weights["lora_A"],
           "up": weights["lora_B"].T, "coefficients": weights["lora_lamda"]}  # fmt: skip
    layer.load_state_dict(own)
    with replayed_dropout(oracle, monkeypatch):
        out = layer(oracle.tensors["x"])
    assert_close("out", out, oracle.tensors["out"])
    learned = {"lora_A": layer.down, "lora_B": layer.up, "lora_lamda": layer.coefficients}
    found = torch.autograd.grad(out.square().sum(), list(learned.values()))
    for name, gradient in zip(learned, found, strict=True):
        expected = oracle.group("gradients")[name]
        assert_close(name, gradient.T if name == "lora_B" else gradient, expected)


@pytest.mark.parametrize("neighbors", [2, 8, 32, 128])
def test_vipamin_matched_tokens_equal_authors_code(neighbors: int) -> None:
    oracle = read_oracle("vipamin_match")
    weights = official_vit(oracle.group("weights")) | {"head.weight": torch.zeros(5, 8), "head.bias": torch.zeros(5)}
    module = tiny_vit(img_size=28, patch_size=2, global_pool="avg", fc_norm=True)
    method = f"vpt(length=3, init=vipamin, neighbors={neighbors}, expansion=0)"
    model = attach_with_weights(module, method, weights)
    model.initialize(collect_init_inputs(model, Examples(oracle.tensors["pixels"].numpy(), np.arange(4)), seed=3))
    for index, expected in enumerate(oracle.tensors[f"matched/{neighbors}"]):
        assert_close(f"block {index}", model.trainable_state_dict()[f"prompts.{index}.tokens"], expected)


def test_vipamin_part_outside_of_attention_equals_authors_code() -> None:
    oracle = read_oracle("vipamin_orth")
    weights = official_vit(oracle.group("weights")) | {"head.weight": torch.zeros(5, 8), "head.bias": torch.zeros(5)}
    model = attach_with_weights(tiny_vit(global_pool="avg", fc_norm=True), "linear", weights)
    means = collect_attention_means(model, Examples(oracle.tensors["pixels"].numpy(), np.arange(4)))
    for index, (vectors, expected) in enumerate(zip(oracle.tensors["vectors"], oracle.tensors["outside"], strict=True)):
        assert_close(f"block {index}", leave_row_space(vectors, means[index]), expected)


def test_prompts_begin_at_tokens_of_authors_code() -> None:
    oracle = read_oracle("spt")
    weights = official_vit(oracle.group("weights")) | {"head.weight": torch.zeros(5, 8), "head.bias": torch.zeros(5)}
    random = {f"prompts.{index}.tokens": torch.zeros(3, 8) for index in range(2)}
    model = attach_with_weights(tiny_vit(), "vpt(length=3, init=tokens)", weights | random)
    model.initialize(collect_init_inputs(model, Examples(oracle.tensors["pixels"].numpy(), np.arange(4)), seed=3))
    # Before the first block theirs are tokens without positions, ours with them: what enters the block.
    positions = [weights["pos_embed"][0, 1:], 0.0]
    for index, (candidates, drawn) in enumerate(
        zip(oracle.group("candidates").values(), oracle.tensors["prompts"], strict=True)
    ):
        assert all(torch.isclose(candidates, prompt).all(-1).any() for prompt in drawn)
        entering, prompts = candidates + positions[index], model.trainable_state_dict()[f"prompts.{index}.tokens"]
        nearest = torch.cdist(prompts, entering.flatten(0, 1)).argmin(1)
        assert len(set(nearest.tolist())) == 3, "each from another token"
        assert_close(f"block {index}", prompts, entering.flatten(0, 1)[nearest])
