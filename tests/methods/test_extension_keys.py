"""Prompts as keys with a gate, and prompts that depend on the image, against attention written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.extensions import P
from helpers.families import backbone_of, images, model_of
from helpers.references import tuned
from vpt import TunedModel, attach
from vpt.attention.class_token_block import ClassTokenBlock
from vpt.serving.multi_task import MultiTaskBackbone, TaskAdapter

pytestmark = pytest.mark.usefixtures("extensions")


def concat_reference(model: TunedModel, timms: Any, gated: bool) -> Tensor:
    """Blocks written out: keys of prompts and tokens side by side, weights by hand, timm's layers one by one."""
    prefix, state = timms.num_prefix_tokens, model.trainable_state_dict()
    x = timms.norm_pre(timms._pos_embed(timms.patch_embed(images())))
    for index, block in enumerate(timms.blocks):
        attn, normed = block.attn, block.norm1(x)
        if gated:
            own = state[f"prompts.{index}.tokens"].expand(len(x), -1, -1)
        else:
            layer = (state[f"prompts.{index}.layer.weight"], state[f"prompts.{index}.layer.bias"])
            own = nn.functional.linear(normed.mean(1), *layer).unflatten(1, (P, -1))
        joined = torch.cat([block.norm1(own), normed], dim=1)
        q, k, v = attn.qkv(joined).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * attn.scale
        if gated:
            weights = torch.cat(
                [state[f"gates.{index}"] * scores[..., :P].softmax(-1), scores[..., P:].softmax(-1)], dim=-1
            )
        else:
            weights = scores.softmax(-1)
        out = (weights @ v)[:, :, P:].transpose(1, 2).flatten(2)
        x = x + block.ls1(attn.proj(out))
        x = x + block.ls2(block.mlp(block.norm2(x)))
    assert prefix
    return model.head(timms.forward_head(timms.norm(x), pre_logits=True))


@pytest.mark.parametrize("family", ["vit", "vit-avg", "dinov2-reg"])
@pytest.mark.parametrize("method", ["gated_keys(gate=0.7)", "of_image"])
def test_kv_prompts_with_gate_or_image_equal_concatenation(family: str, method: str) -> None:
    """With the class token alone in the last block (vit, dinov2-reg) and with all tokens (vit-avg)."""
    model = tuned(family, method, 0.5)
    cls_only = any(isinstance(module, ClassTokenBlock) for module in model.network.modules())
    assert cls_only == (family != "vit-avg")
    results = []
    for logits in (model(images()), concat_reference(model, model_of(family), method.startswith("gated"))):
        loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 1]))
        results.append([logits.detach(), *torch.autograd.grad(loss, model.trainable_parameters())])
    for actual, expected in zip(*results, strict=True):
        assert float(expected.norm()) > 0
        assert float((actual - expected).norm() / expected.norm()) < 1e-4


def test_gated_keys_on_swin_equal_reference() -> None:
    """In each window: timm's own attention, plus the gate times a softmax over prompts."""
    model, timms = tuned("swin", "gated_keys(gate=0.7)", 0.5), model_of("swin")
    state = model.trainable_state_dict()
    blocks = [block for stage in timms.layers for block in stage.blocks]

    def gated(index: int, block: Any) -> Any:
        attn = block.attn

        def forward(x: Tensor, mask: Tensor | None = None) -> Tensor:
            projected: list[Tensor] = []
            handle = attn.proj.register_forward_pre_hook(lambda layer, args: projected.append(args[0]))
            type(attn).forward(attn, x, mask=mask)
            handle.remove()
            prompts = block.norm1(state[f"prompts.{index}.tokens"])[None]
            q = attn.qkv(x).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)[0]
            _, k, v = attn.qkv(prompts).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
            extra = (q @ k.transpose(-2, -1) * attn.scale).softmax(-1) @ v
            return attn.proj(projected[0] + state[f"gates.{index}"] * extra.transpose(1, 2).flatten(2))

        return forward

    for index, block in enumerate(blocks):
        block.attn.forward = gated(index, block)
    with torch.no_grad():
        expected = model.head(timms.forward_head(timms.forward_features(images()), pre_logits=True))
        assert torch.allclose(model(images()), expected, rtol=1e-4, atol=1e-5)


def test_gated_keys_with_gate_of_zero_equal_the_frozen_feature() -> None:
    for family in ("vit", "swin", "beit"):
        model = attach(backbone_of(family), "gated_keys", 3).eval()
        plain = attach(backbone_of(family), "linear", 3).eval()
        with torch.no_grad():
            assert torch.allclose(model.features(images()), plain.features(images()), rtol=1e-5, atol=1e-6)


def test_attention_weights_of_gated_keys_sum_to_one_plus_the_gate() -> None:
    model = tuned("vit", "gated_keys(gate=0.7)", 0.5)
    attention = model.wrappers()["blocks.0.attn"]
    gate = float(model.trainable_state_dict()["gates.0"].detach())
    weights = attention.attention_weights(torch.randn(2, 17, 32))
    assert torch.allclose(weights[..., :17].sum(-1), torch.ones(()), atol=1e-5)
    assert torch.allclose(weights[..., 17:].sum(-1), torch.full((), gate), atol=1e-5)


def test_multi_task_backbone_with_keys_of_extensions_equals_single_models() -> None:
    backbone = backbone_of("vit")
    models = []
    methods = ["gated_keys(gate=0.5)", "gated_keys(gate=0.5)", "vpt(length=3)", "linear", "of_image", "of_image"]
    for seed, method in enumerate(methods):
        torch.manual_seed(seed)
        models.append(attach(backbone, method, 3).eval())
        with torch.no_grad():
            for weight in models[-1].trainable_parameters():
                weight.add_(0.5 * torch.randn_like(weight))
    tasks = [TaskAdapter.from_model(model) for model in models]
    assert all(task is not None for task in tasks)
    batch = images(12)
    answers = MultiTaskBackbone(backbone)(batch, [tasks[i % 6] for i in range(12)])
    with torch.no_grad():
        for i in range(12):
            assert torch.allclose(answers[i], models[i % 6](batch[i : i + 1])[0], rtol=1e-4, atol=1e-5)
