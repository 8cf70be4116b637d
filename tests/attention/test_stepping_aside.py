"""The exact form of prompts steps aside where attention is hooked, wrapped or computed otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.families import backbone_of, images, model_of
from vpt import TunedModel, attach

DEEP, CONCATENATED = "vpt(length=3)", "vpt(length=3, impl=concat)"


class WrappedLinear(nn.Module):
    """A linear layer with a low-rank change beside it, which its `weight` does not show, as in PEFT's LoRA."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.change = nn.Linear(base_layer.in_features, base_layer.out_features, bias=False)

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base_layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.change(x)


def wrap_qkv(model: Any) -> None:
    for block in model.blocks:
        block.attn.qkv = WrappedLinear(block.attn.qkv)


def hook_qkv(model: Any) -> None:
    for block in model.blocks:
        block.attn.qkv.register_forward_hook(lambda module, args, out: 1.5 * out)


def hook_attention(model: Any) -> None:
    model.blocks[1].attn.register_forward_hook(lambda module, args, out: 2 * out)


def prepare_attention_input(model: Any) -> None:
    model.blocks[1].attn.register_forward_pre_hook(lambda module, args: (2 * args[0],))


def replace_forward(model: Any) -> None:
    attention = model.blocks[1].attn
    original = attention.forward
    attention.forward = lambda x, **context: -original(x, **context)


def scale_by_number_of_tokens(model: Any) -> None:
    """Another class of attention, whose output is as before with as many tokens as the image has."""
    tokens = model.pos_embed.shape[1]

    class Scaled(type(model.blocks[0].attn)):  # type: ignore[misc]
        def forward(self, x: Tensor, **context: Any) -> Tensor:
            return super().forward(x, **context) * math.log(x.shape[1]) / math.log(tokens)

    for block in model.blocks:
        block.attn.__class__ = Scaled


CHANGES = [wrap_qkv, hook_qkv, hook_attention, prepare_attention_input, replace_forward, scale_by_number_of_tokens]


def prompted(model: nn.Module, method: str) -> TunedModel:
    torch.manual_seed(0)
    return attach(model, method, 3).eval()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_exact_form_steps_aside_and_equals_concatenation(change: Callable[[nn.Module], None]) -> None:
    model = model_of("vit")
    torch.manual_seed(1)
    change(model)
    tuned, concatenated = prompted(model, DEEP), prompted(model, CONCATENATED)
    assert not tuned.layout.supports_kv_prompts
    concatenated.load_trainable_state_dict(tuned.trainable_state_dict())
    unchanged = prompted(model_of("vit"), DEEP)
    unchanged.load_trainable_state_dict(tuned.trainable_state_dict())
    with torch.no_grad():
        assert torch.allclose(tuned(images()), concatenated(images()), rtol=1e-5, atol=1e-5)
        assert (tuned(images()) - unchanged(images())).abs().max() > 1e-3


def test_exact_form_stays_on_plain_attention() -> None:
    assert prompted(model_of("vit"), DEEP).layout.supports_kv_prompts
    assert prompted(model_of("vit"), DEEP).layout.cls_only


def test_exact_form_stays_beside_wrapped_output_projection() -> None:
    model: Any = model_of("vit")
    for block in model.blocks:  # `proj` is called, not read
        block.attn.proj = WrappedLinear(block.attn.proj)
        block.attn.proj.in_features = block.attn.proj.base_layer.in_features
    tuned, concatenated = prompted(model, DEEP), prompted(model, CONCATENATED)
    assert tuned.layout.supports_kv_prompts
    concatenated.load_trainable_state_dict(tuned.trainable_state_dict())
    with torch.no_grad():
        assert torch.allclose(tuned(images()), concatenated(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["linear", DEEP])
def test_hook_of_last_block_sees_every_token(method: str) -> None:
    model: Any = model_of("vit")
    shapes: list[torch.Size] = []
    model.blocks[-1].register_forward_hook(lambda module, args, out: shapes.append(out.shape))
    tuned = prompted(model, method)
    assert not tuned.layout.cls_only
    shapes.clear()
    with torch.no_grad():
        tuned(images())
    assert [shape[1] for shape in shapes] == [model.pos_embed.shape[1]]


def test_windows_with_hooked_attention_are_refused() -> None:
    backbone = backbone_of("swin")
    backbone.module.get_submodule("layers.0.blocks.0.attn").register_forward_hook(lambda module, args, out: 2 * out)
    assert not attach(backbone, "linear", 3).layout.supports_kv_prompts


def test_windows_with_wrapped_qkv_keep_prompts() -> None:
    backbone = backbone_of("swin")
    torch.manual_seed(1)
    for name, module in list(backbone.module.named_modules()):
        if name.endswith("attn.qkv"):
            backbone.module.set_submodule(name, WrappedLinear(module))  # windows call `qkv` for prompts too
    assert attach(backbone, DEEP, 3).layout.supports_kv_prompts
