"""Every variant of the ablations computes what it says: written here anew with plain tensors.

Nothing of vpt's wrappers is used: timm's own parts are called one after the other, and what a method adds stands
between them in the open.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, linear

from helpers.families import SIZE, backbone_of, images, model_of
from helpers.references import compare, trainable_tensors, tuned
from vpt import TunedModel, attach
from vpt.methods.init_inputs import InitInputs

P = 3
VITS = ["vit", "vit-avg", "dinov2-reg"]


def embed_patches(model: Any, x: Tensor) -> Tensor:
    return model.norm_pre(model._pos_embed(model.patch_embed(x)))


def classify(model: Any, tuned_model: TunedModel, x: Tensor) -> Tensor:
    """The final norm, the backbone's own pooling of what is now in the sequence, and the head."""
    return tuned_model.head(model.forward_head(model.norm(x), pre_logits=True))


def insert_prompts(x: Tensor, prompts: Tensor, prefix: int) -> Tensor:
    return torch.cat([x[:, :prefix], prompts.expand(len(x), -1, -1), x[:, prefix:]], dim=1)


def remove_prompts(x: Tensor, prefix: int, p: int = P) -> Tensor:
    return torch.cat([x[:, :prefix], x[:, prefix + p :]], dim=1)


def run_blocks(model: Any, x: Tensor, own: dict[int, Tensor], p: int = P) -> Tensor:
    """Blocks with prompts: a block's own replace what travels; behind the last own ones, they travel on."""
    prefix, inside = model.num_prefix_tokens, False
    for index, block in enumerate(model.blocks):
        if index in own:
            x = insert_prompts(remove_prompts(x, prefix, p) if inside else x, own[index], prefix)
            inside = True
        x = block(x)
    return x


@pytest.mark.parametrize("impl", ["kv", "concat"])
@pytest.mark.parametrize("depth", ["1-1", "1-2", "1-3", "2-2", "2-3", "3-3"])
@pytest.mark.parametrize("family", VITS)
def test_vpt_of_each_depth_range_equals_reference(family: str, depth: str, impl: str) -> None:
    model = tuned(family, f"vpt(length={P}, dropout=0, depth={depth}, impl={impl})")
    first, last = (int(bound) - 1 for bound in depth.split("-"))
    prompts = trainable_tensors(model, "prompts")
    assert len(prompts) == last - first + 1
    own = dict(zip(range(first, last + 1), prompts, strict=True))
    plain: Any = model_of(family)

    def reference(x: Tensor) -> Tensor:
        return classify(
            plain, model, remove_prompts(run_blocks(plain, embed_patches(plain, x), own), plain.num_prefix_tokens)
        )

    compare(model, reference)


def pool(tokens: Tensor, output: str, prefix: int, p: int) -> Tensor:
    """What the head reads, token by token."""
    rows = {
        "cls": [0],
        "image": range(prefix + p, tokens.shape[1]),
        "prompt": range(prefix, prefix + p),
        "global": range(prefix, tokens.shape[1]),
    }[output.split("_")[0]]
    chosen = torch.stack([tokens[:, row] for row in rows])
    return chosen.max(dim=0).values if output.endswith("max") else chosen.mean(dim=0)


@pytest.mark.parametrize("family", ["vit", "vit-avg", "dinov2-reg"])
@pytest.mark.parametrize("output", ["cls", "image_mean", "image_max", "cls_image_mean"])
def test_linear_of_each_output_equals_reference(family: str, output: str) -> None:
    model, plain, x = tuned(family, f"linear(output={output})"), model_of(family), images(3)
    with torch.no_grad():
        tokens = plain.forward_features(x)
        parts = ["cls", "image_mean"] if output == "cls_image_mean" else [output]
        read = torch.cat([plain.fc_norm(pool(tokens, part, plain.num_prefix_tokens, 0)) for part in parts], dim=1)
        assert torch.allclose(model.features(x), read, atol=1e-5)
        assert torch.allclose(model(x), model.head(read), atol=1e-5)
    assert model.counts().trainable == (read.shape[1] + 1) * model.num_classes


OUTPUTS = ["cls", "image_mean", "image_max", "prompt_mean", "prompt_max", "global_mean", "global_max"]


@pytest.mark.parametrize("impl", ["kv", "concat"])
@pytest.mark.parametrize("depth", ["deep", "shallow", "2-2"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_vpt_of_each_output_equals_reference(output: str, depth: str, impl: str) -> None:
    for family in ("vit", "vit-avg"):
        model = tuned(family, f"vpt(length={P}, dropout=0, depth={depth}, output={output}, impl={impl})")
        blocks = {"deep": range(3), "shallow": range(1), "2-2": range(1, 2)}[depth]
        own = dict(zip(blocks, trainable_tensors(model, "prompts"), strict=True))
        plain: Any = model_of(family)

        def reference(x: Tensor, plain: Any = plain, own: Any = own, model: TunedModel = model) -> Tensor:
            tokens = plain.norm(run_blocks(plain, embed_patches(plain, x), own))
            return model.head(plain.fc_norm(pool(tokens, output, plain.num_prefix_tokens, P)))

        compare(model, reference)


@pytest.mark.parametrize("depth", ["deep", "shallow", "2-3"])
@pytest.mark.parametrize("location", ["add", "add_1"])
@pytest.mark.parametrize("family", VITS)
def test_vpt_with_added_prompts_equals_reference(family: str, location: str, depth: str) -> None:
    model = tuned(family, f"vpt(dropout=0, location={location}, depth={depth})")
    plain: Any = model_of(family)
    blocks = {"deep": range(3), "shallow": range(1), "2-3": range(1, 3)}[depth]
    own = dict(zip(blocks, trainable_tensors(model, "prompts"), strict=True))
    tokens = (SIZE // 8) ** 2 + plain.num_prefix_tokens
    assert {len(prompts) for prompts in own.values()} == {tokens if location == "add" else 1}

    def reference(x: Tensor) -> Tensor:
        x = embed_patches(plain, x)
        for index, block in enumerate(plain.blocks):
            x = block(x + own[index] if index in own else x)
        return classify(plain, model, x)

    compare(model, reference)


@pytest.mark.parametrize("family", VITS)
def test_vpt_with_pixel_patch_prompts_equals_reference(family: str) -> None:
    model = tuned(family, f"vpt(length={P}, dropout=0, location=prepend_pixel, depth=shallow)")
    plain: Any = model_of(family)
    (patches,) = trainable_tensors(model, "prompts")
    assert patches.shape == (P, 3, 8, 8)
    weight, bias = plain.patch_embed.proj.weight, plain.patch_embed.proj.bias
    bias = 0 if bias is None else bias

    def reference(x: Tensor) -> Tensor:
        tokens = patches.flatten(1) @ weight.flatten(1).T + bias
        x = run_blocks(plain, embed_patches(plain, x), {0: tokens})
        return classify(plain, model, remove_prompts(x, plain.num_prefix_tokens))

    compare(model, reference)


@pytest.mark.parametrize("family", VITS)
def test_vpt_with_channel_prompts_equals_reference(family: str) -> None:
    model = tuned(family, "vpt(length=2, location=concat_channel, depth=shallow)")
    plain: Any = model_of(family)
    (channels,), (further,) = trainable_tensors(model, "channels"), trainable_tensors(model, "further")
    projection = plain.patch_embed.proj
    (weight,) = trainable_tensors(model, "backbone.patch_embed.proj.weight")
    bias = next(iter(trainable_tensors(model, "backbone.patch_embed.proj.bias")), None)

    class Wide(nn.Module):
        """One convolution over five channels."""

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([x, channels.expand(len(x), -1, -1, -1)], dim=1)
            return conv2d(x, torch.cat([weight, further], dim=1), bias, stride=projection.stride)

    plain.patch_embed.proj = Wide()

    def reference(x: Tensor) -> Tensor:
        return classify(plain, model, plain.blocks(embed_patches(plain, x)))

    compare(model, reference)


@pytest.mark.parametrize("family", ["vit", "swin", "convnext", "resnet"])
def test_vpt_with_padding_prompts_equals_reference(family: str) -> None:
    model = tuned(family, "vpt(length=2, location=pad, depth=shallow)")
    plain: Any = model_of(family)
    (rows,), (columns,) = trainable_tensors(model, "rows"), trainable_tensors(model, "columns")
    grows = family in ("convnext", "resnet")

    def reference(x: Tensor) -> Tensor:
        if not grows:
            x = interpolate(x, SIZE - 4, mode="bilinear", antialias=True)
        side = x.shape[-1]
        framed = x.new_zeros(len(x), 3, side + 4, side + 4)
        framed[:, :, 2:-2, 2:-2] = x
        framed[:, :, :2], framed[:, :, -2:] = rows[0], rows[1]
        framed[:, :, 2:-2, :2], framed[:, :, 2:-2, -2:] = columns[0], columns[1]
        return model.head(plain.forward_head(plain.forward_features(framed), pre_logits=True))

    compare(model, reference)


@pytest.mark.parametrize("shared", ["blocks", "prompts", "all"])
def test_vpt_with_shared_prompts_equals_reference(shared: str) -> None:
    model = tuned("vit", f"vpt(length={P}, dropout=0, shared={shared})")
    plain: Any = model_of("vit")
    tensors = trainable_tensors(model, "prompts")
    expected = {"blocks": [(P, 32)], "prompts": [(1, 32)] * 3, "all": [(1, 32)]}[shared]
    assert [tuple(tensor.shape) for tensor in tensors] == expected
    own = {index: tensors[index % len(tensors)].expand(P, -1) for index in range(3)}

    def reference(x: Tensor) -> Tensor:
        return classify(plain, model, remove_prompts(run_blocks(plain, embed_patches(plain, x), own), 1))

    compare(model, reference)


def test_vpt_with_projected_prompts_equals_reference() -> None:
    model = tuned("vit", f"vpt(length={P}, dropout=0, projection=4)")
    plain: Any = model_of("vit")
    tokens, (weight,), (bias,) = (
        trainable_tensors(model, part) for part in (".tokens", "projection.weight", "projection.bias")
    )
    assert [tuple(tensor.shape) for tensor in tokens] == [(P, 4)] * 3
    own = {index: linear(tensor, weight, bias) for index, tensor in enumerate(tokens)}

    def reference(x: Tensor) -> Tensor:
        own.update({index: linear(tensor, weight, bias) for index, tensor in enumerate(tokens)})
        return classify(plain, model, remove_prompts(run_blocks(plain, embed_patches(plain, x), own), 1))

    compare(model, reference)


def test_vpt_with_frozen_prompts_saves_but_does_not_train_them() -> None:
    model = attach(backbone_of("vit"), f"vpt(length={P}, frozen=true)", 3).eval()
    assert len(trainable_tensors(model, "prompts")) == 3
    assert model.only_head_trains
    assert model.counts().trainable == 32 * 3 + 3
    plain: Any = model_of("vit")
    own = dict(enumerate(trainable_tensors(model, "prompts")))
    compare(
        model.train(),
        lambda x: classify(plain, model, remove_prompts(run_blocks(plain, embed_patches(plain, x), own), 1)),
    )


def test_vpt_with_prototype_init_starts_at_the_prototypes() -> None:
    model = attach(backbone_of("vit"), "vpt(length=3, init=prototypes)", 3).eval()
    prototypes = torch.randn(3, 32)
    model.initialize(InitInputs(prototypes))
    assert all(torch.equal(prompts, prototypes) for prompts in trainable_tensors(model, "prompts"))


def test_gated_with_register_tokens_equals_reference() -> None:
    # In fp64: the gradient of the second gate is what is left of large terms of both signs.
    model = tuned("dinov2-reg", f"gated(length={P}, dropout=0, gate=0.7)").double()
    plain: Any = model_of("dinov2-reg").double()
    (prompts,), gates, temperatures = (trainable_tensors(model, part) for part in ("prompts", "logit", "temperature"))
    assert len(gates) == 2 and len(temperatures) == 3
    prefix = plain.num_prefix_tokens
    with torch.no_grad():
        for temperature, value in zip(temperatures, (0.5, 1.5, 0.8), strict=True):
            temperature.fill_(value)

    def cooled(x: Tensor, block: Any, temperature: Tensor) -> Tensor:
        """Written out: no function of timm's attention is called."""
        attn, normed = block.attn, block.norm1(x)
        q, k, v = attn.qkv(normed).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / (q.shape[-1] ** 0.5 * temperature)).softmax(-1)
        x = x + block.ls1(attn.proj((weights @ v).transpose(1, 2).flatten(2)))
        return x + block.ls2(block.mlp(block.norm2(x)))

    def reference(x: Tensor) -> Tensor:
        x, before = embed_patches(plain, x), prompts.expand(len(x), -1, -1)
        for index, block in enumerate(plain.blocks):
            out = cooled(insert_prompts(x, before, prefix), block, temperatures[index])
            x, after = remove_prompts(out, prefix), out[:, prefix : prefix + P]
            if index < 2:
                gate = gates[index].sigmoid()
                before = gate * after + (1 - gate) * before
        return classify(plain, model, x)

    compare(model, reference)
