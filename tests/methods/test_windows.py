"""Prompts in Swin compute what the paper says, window by window and image by image.

The reference copies the prompts into every window, in loops over images and windows, and uses nothing of vpt.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from helpers.families import backbone_of, images, model_of
from vpt import TunedModel, attach
from vpt.errors import UnsupportedError

LABELS = torch.tensor([0, 1, 2, 1])
P = 3


def tuned(method: str) -> TunedModel:
    torch.manual_seed(0)
    model = attach(backbone_of("swin"), method, 3).eval()
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.normal_()
    return model


def plain_attention(attention: Any, x: Tensor, bias: Tensor) -> Tensor:
    """Plain attention in one window of one image: x (tokens, d), bias (heads, tokens, tokens)."""
    n, d = x.shape
    q, k, v = attention.qkv(x).view(n, 3, attention.num_heads, -1).permute(1, 2, 0, 3)
    weights = (q @ k.transpose(1, 2) * attention.scale + bias).softmax(-1)
    return attention.proj((weights @ v).transpose(0, 1).reshape(n, d))


def attend_windows(block: Any, image: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """One image (height, width, d) and its prompts (p, d), both normalized: every window with a copy of the prompts.

    Bias and mask are zero in the prompts' rows and columns; their outputs are averaged over the windows.
    """
    height, width, d = image.shape
    rows, columns = block.window_size
    shift = block.shift_size
    image = image.roll((-shift[0], -shift[1]), (0, 1))
    own = block.attn._get_rel_pos_bias()[0]
    out, prompt_outputs = torch.zeros_like(image), []
    for number, (top, left) in enumerate((t, s) for t in range(0, height, rows) for s in range(0, width, columns)):
        window = image[top : top + rows, left : left + columns].reshape(-1, d)
        wide = own.new_zeros(len(own), P + len(window), P + len(window))
        wide[:, P:, P:] = own if block.attn_mask is None else own + block.attn_mask[number]
        output = plain_attention(block.attn, torch.cat([prompts, window]), wide)
        prompt_outputs.append(output[:P])
        out[top : top + rows, left : left + columns] = output[P:].reshape(rows, columns, d)
    return out.roll((shift[0], shift[1]), (0, 1)), torch.stack(prompt_outputs).mean(0)


def run_block(block: Any, x: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """A Swin block on (batch, height, width, d) with prompts (batch, p, d)."""
    pairs = [attend_windows(block, block.norm1(i), block.norm1(p)) for i, p in zip(x, prompts, strict=True)]
    x = x + torch.stack([image for image, _ in pairs])
    prompts = prompts + torch.stack([output for _, output in pairs])
    return x + block.mlp(block.norm2(x)), prompts + block.mlp(block.norm2(prompts))


def reference(plain: Any, model: TunedModel, own: list[Tensor], x: Tensor, pool_prompts: bool) -> Tensor:
    x, prompts, number = plain.patch_embed(x), None, 0
    for stage in plain.layers:
        x = stage.downsample(x)
        if prompts is not None and hasattr(stage.downsample, "reduction"):
            four = stage.downsample.norm(torch.cat([prompts] * 4, dim=-1))
            prompts = linear(four, stage.downsample.reduction.weight)
        for block in stage.blocks:
            if number < len(own):
                prompts = own[number].expand(len(x), -1, -1)
            x, prompts = run_block(block, x, prompts)
            number += 1
    tokens = plain.norm(torch.cat([x.flatten(1, 2), prompts], 1) if pool_prompts else x.flatten(1, 2))
    return model.head(tokens.mean(1))


@pytest.mark.parametrize("impl", ["kv", "concat"])
@pytest.mark.parametrize("pool_prompts", ["false", "true"])
@pytest.mark.parametrize("depth", ["deep", "shallow"])
def test_vpt_on_swin_equals_reference(depth: str, pool_prompts: str, impl: str) -> None:
    model = tuned(f"vpt(length={P}, dropout=0, depth={depth}, pool_prompts={pool_prompts}, impl={impl})").train()
    plain: Any = model_of("swin")
    assert any(any(block.shift_size) for stage in plain.layers for block in stage.blocks), "no window is shifted"
    own = [tensor for name, tensor in model.trainable_state_dict().items() if name.startswith("prompts.")]
    assert [tuple(tensor.shape) for tensor in own] == {
        "deep": [(P, 16), (P, 16), (P, 32), (P, 32)],
        "shallow": [(P, 16)],
    }[depth]
    results = []
    for logits in (model(images()), reference(plain, model, own, images(), pool_prompts == "true")):
        gradients = torch.autograd.grad(cross_entropy(logits, LABELS), model.trainable_parameters())
        results.append([logits.detach(), *gradients])
    for actual, expected in zip(*results, strict=True):
        assert float(expected.norm()) > 0
        assert float((actual - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("depth", ["deep", "shallow"])
def test_vpt_on_swin_of_a_batch_equals_single_images(depth: str) -> None:
    """The official code mixes the samples of a batch in shallow Swin."""
    model = tuned(f"vpt(length={P}, dropout=0, depth={depth}, pool_prompts=true)")
    with torch.no_grad():
        together = model(images())
        alone = torch.cat([model(image[None]) for image in images()])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_prompt_dropout_on_swin_is_drawn_per_image() -> None:
    model = tuned(f"vpt(length={P}, dropout=0.5)").train()
    shapes = []
    for prompts in model.added_modules["prompts"].children():
        prompts.register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape)))
    model(images())
    assert [shape[0] for shape in shapes] == [len(LABELS)] * 4


def test_prototype_init_on_swin_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="the stages have widths of their own"):
        attach(backbone_of("swin"), "vpt(init=prototypes)", 3)


@pytest.mark.parametrize("method", ["vpt(depth=1-2)", "vpt(location=add)", "vpt(output=image_mean)", "vpt(output=cls)"])
def test_vpt_options_unsupported_on_swin_are_refused(method: str) -> None:
    with pytest.raises(UnsupportedError, match="in windows prompts are prepended, deep or shallow"):
        attach(backbone_of("swin"), method, 3)


def test_vpt_on_swin_v2_is_refused_and_names_methods_that_fit() -> None:
    import timm

    options = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": (2,), "num_heads": (2,)}
    model = timm.create_model("swinv2_tiny_window8_256", pretrained=False, num_classes=0, **options)
    with pytest.raises(
        UnsupportedError, match=r"SwinTransformerV2 attend in a way .*location=pad.* methods that fit: linear"
    ):
        attach(model, "vpt", 3)
    assert attach(model, "vpt(length=2, location=pad, depth=shallow)", 3).injected_modules == ("images",)


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("vit", "vpt(pool_prompts=true)"),
        ("resnet", "vpt(location=pad, depth=shallow, pool_prompts=true)"),
        ("swin", "vpt(location=pad, depth=shallow, pool_prompts=true)"),
    ],
)
def test_pool_prompts_where_no_window_has_them_is_refused(family: str, method: str) -> None:
    with pytest.raises(UnsupportedError, match="pool_prompts=true is for prompts that are prepended in the windows"):
        attach(backbone_of(family), method, 3)
