"""Prompts of later papers: where they begin, and what their options compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from helpers.families import TINY, backbone_of, images
from vpt import TunedModel, attach, load_backbone, parse_method
from vpt.attention.projections import project
from vpt.errors import SpecError, UnsupportedError
from vpt.methods.init_inputs import InitInputs
from vpt.methods.prompts import Prompts
from vpt.training import Examples, collect_init_inputs

FROZEN_AT_FIRST = ("vpt(length=3, attention=zero_init)", "cross(length=3, gate=true)")


def prompts_of(method: str) -> list[Prompts]:
    model = attach(backbone_of("vit"), method, 3).eval()
    return [module for module in model.modules() if isinstance(module, Prompts)]


def attentions_of(model: TunedModel) -> list[Any]:
    return [module for module in model.wrappers().values() if getattr(module, "kv_prompts", None) is not None]


@pytest.mark.parametrize("family", ["vit", "swin", "beit", "dinov2-reg"])
@pytest.mark.parametrize("method", FROZEN_AT_FIRST)
def test_gates_at_init_leave_the_features_of_the_frozen_backbone(method: str, family: str) -> None:
    frozen, gated = (attach(backbone_of(family), one, 3).eval().features(images()) for one in ("linear", method))
    assert torch.allclose(frozen, gated, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", FROZEN_AT_FIRST)
def test_gates_at_init_have_a_gradient_and_their_prompts_none(method: str) -> None:
    model = attach(backbone_of("vit"), method, 3).eval()
    model(images()).square().sum().backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    gates = [gradient for name, gradient in gradients.items() if name.endswith("gate")]
    tokens = [gradient for name, gradient in gradients.items() if name.endswith("tokens")]
    assert gates and all(gradient.abs().max() > 0 for gradient in gates)
    assert all(gradient.abs().max() == 0 for gradient in tokens)


def test_prompts_with_rank_are_a_product_of_two_matrices_of_each_block() -> None:
    found = prompts_of("vpt(length=6, rank=2, dropout=0)")
    layers = [prompts.projection for prompts in found]
    assert len(set(layers)) == len(layers) > 1
    for prompts, layer in zip(found, layers, strict=True):
        assert isinstance(layer, nn.Linear) and layer.bias is None and prompts.tokens.shape == (6, 2)
        assert torch.allclose(prompts(1), prompts.tokens @ layer.weight.T)
        assert torch.linalg.matrix_rank(prompts(1)) == 2


def test_fourier_share_counts_prompts_without_rounding_errors() -> None:
    assert prompts_of("vpt(length=100, fourier=0.29)")[0].num_transformed == 29
    for length, share in ((10, "0.1"), (7, "0.143"), (3, "0.334")):
        with pytest.raises(SpecError, match=f"less than one of {length} prompts; give {share} or more"):
            parse_method(f"vpt(length={length}, fourier=0.05)")
        assert parse_method(f"vpt(length={length}, fourier={share})")


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.3, 1), (0.5, 2), (1.0, 4)])
def test_prompts_with_fourier_transform_their_first_share(share: float, count: int) -> None:
    for prompts in prompts_of(f"vpt(length=4, fourier={share}, dropout=0)"):
        tokens, given = prompts(1), prompts.tokens
        assert torch.equal(tokens[count:], given[count:])
        if count:
            expected = torch.fft.fft(torch.fft.fft(given[:count], dim=-1), dim=-2).real
            assert torch.allclose(tokens[:count], expected, atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "swin", "beit", "eva02-unfused"])
def test_prefix_with_projected_prompts_equals_vpt(family: str) -> None:
    prompted, prefixed = (
        attach(backbone_of(family), method, 3).eval() for method in ("vpt(length=3, dropout=0)", "prefix(length=3)")
    )
    pairs = zip(attentions_of(prompted), attentions_of(prefixed), strict=True)
    with torch.no_grad():
        for own, other in pairs:
            tokens = own.kv_prompts(torch.empty(own.kv_prompts.windows_per_image, 1, 1))
            keys, values = project(own.attention, tokens, "kv")
            other.kv_prompts.prompts.keys.copy_(keys[0])
            other.kv_prompts.prompts.values.copy_(values[0])
        assert torch.allclose(prompted.features(images()), prefixed.features(images()), rtol=1e-5, atol=1e-5)


def test_initialize_from_tokens_takes_tokens_that_enter_the_block() -> None:
    model = attach(backbone_of("vit"), "vpt(length=3, depth=2-3, init=tokens)", 3)
    tokens = {index: torch.randn(12, model.width) for index in range(4)}
    model.initialize(InitInputs(tokens=tokens))
    found = [module for module in model.modules() if isinstance(module, Prompts)]
    for index, prompts in enumerate(found, 1):
        assert torch.equal(prompts.tokens, tokens[index][[0, 4, 8]])
    with pytest.raises(SpecError, match="these have 2 in all"):
        model.initialize(InitInputs(tokens={index: sample[:2] for index, sample in tokens.items()}))


@pytest.mark.parametrize("options", ["", ", depth=shallow"])
def test_initialize_from_tokens_in_windows_takes_tokens_of_each_stage(options: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, *[backbone_of("swin").preprocessing.size] * 2), np.uint8)
    model = attach(backbone_of("swin"), f"vpt(length=3, init=tokens{options})", 3)
    inputs = collect_init_inputs(model, Examples(pixels, np.arange(6) % 3))
    model.initialize(inputs)
    for index, prompts in enumerate(module for module in model.modules() if isinstance(module, Prompts)):
        assert (prompts.tokens.unsqueeze(1) == inputs.tokens[index]).all(2).any(1).all()


@pytest.mark.parametrize("family", ["vit", "eva02-unfused", "beit", "dinov3", "siglip"])
@pytest.mark.parametrize("options", ["", ", depth=shallow", ", depth=2-3", ", impl=concat"])
def test_initialize_by_vipamin_matches_tokens_and_leaves_the_output_of_attention(family: str, options: str) -> None:
    """Without expansion a prompt is a mean of means of tokens; the rest has values that attention does not put out."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    examples, prompts = Examples(pixels, np.arange(6) % 3), []
    for expansion in (0, 1):
        torch.manual_seed(0)
        method = f"vpt(length=3, init=vipamin, neighbors=1, expansion={expansion}{options})"
        model = attach(backbone_of(family), method, 3)
        inputs = collect_init_inputs(model, examples, seed=0)
        model.initialize(inputs)
        prompts.append([module for module in model.modules() if isinstance(module, Prompts)])
    first = 1 if "2-3" in options else 0
    for index, (matched, outside) in enumerate(zip(*prompts, strict=True), first):
        means = inputs.attention[index]
        assert len(means.outputs) < 32
        distances = torch.cdist(matched.tokens.detach(), means.tokens)
        assert distances.min(1).values.max() < 1e-4
        values = outside.tokens.detach() @ means.value_weight + means.value_bias
        assert (values @ means.outputs.T).abs().max() < 1e-3 * values.norm() * means.outputs.norm()


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("vpt(length=3, init=vipamin, neighbors=17)", "means of 17 image tokens, and there are 16; write neighbors=16"),
        ("vpt(length=3, init=vipamin)", "its 17 tokens span all 16 channels of this backbone; write expansion=0"),
    ],
)
def test_initialize_by_vipamin_of_too_few_tokens_or_channels_is_refused(method: str, reason: str) -> None:
    narrow = load_backbone(timm.create_model("vit_base_patch16_224", **TINY | {"embed_dim": 16}, num_classes=0))
    examples = Examples(np.zeros((3, 3, 32, 32), np.uint8), np.arange(3))
    model = attach(narrow, method, 3)
    with pytest.raises(SpecError) as caught:
        model.initialize(collect_init_inputs(model, examples))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("vpt(init=vipamin, expansion=1.5)", "expansion is 1.5; it must lie between 0 and 1"),
        ("vpt(init=vipamin, neighbors=0)", "neighbors is 0; it must be at least 1"),
        ("vpt(neighbors=4)", "neighbors and expansion are options of init=vipamin"),
        ("vpt(rank=0)", "rank is 0; it must be at least 1"),
        ("vpt(fourier=1.5)", "fourier is 1.5; it must lie between 0 and 1"),
        ("vpt(rank=2, projection=2)", "projection and rank both factor the prompts"),
        ("vpt(rank=2, frozen=true)", "would not stay frozen"),
        ("vpt(rank=2, init=tokens)", "a start at patch tokens is for whole tokens"),
        ("vpt(attention=zero_init, depth=shallow)", "a softmax of their own is for prompts that are keys and values"),
        ("vpt(attention=zero_init, output=prompt_mean)", "a softmax of their own"),
        ("vpt(attention=zero_init, impl=concat)", "impl=concat computes tokens"),
        ("vpt(attention=zero_init, drop_after=true)", "leave pool_prompts and drop_after out"),
        ("vpt(attention=zero_init, pool_prompts=true)", "leave pool_prompts and drop_after out"),
        ("vpt(location=pad, depth=shallow, fourier=0.5)", "are for prompts that are tokens, not for pad"),
        ("cross(length=0)", "length is 0"),
        ("prefix(depth=shallow)", "a prefix has no output that propagates"),
        ("adaptive(kernel=0)", "kernel is 0; it must be at least 1"),
        ("adapter(drop_path=1.0)", "drop_path is 1.0"),
        ("lora(rank_dropout=1.0)", "rank_dropout is 1.0"),
    ],
)
def test_later_methods_with_invalid_options_are_refused(method: str, reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_method(method)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("family", "method", "reason"),
    [
        *(
            ("resnet", method, "and ResNet has no blocks with attention")
            for method in ("cross", "prefix", "adaptive", "vpt(attention=zero_init)")
        ),
        ("convnext", "adapter(reduction=4, position=post)", "behind transformer blocks, and ConvNeXt has none"),
        ("swin", "adaptive", "all blocks share an MLP of one width, and the stages of SwinTransformer have their own"),
        ("swin", "vpt(init=vipamin)", "vipamin reads attention over all tokens of an image"),
    ],
)
def test_later_methods_say_why_a_backbone_does_not_fit(family: str, method: str, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        attach(backbone_of(family), method, 3)


@pytest.mark.parametrize("method", ["cross", "prefix", "adaptive", "vpt(attention=zero_init)", "vpt(init=vipamin)"])
def test_keys_in_blocks_of_two_attentions_are_refused_where_vpt_concatenates(method: str) -> None:
    module = timm.create_model("vit_small_patch16_18x2_224", num_classes=0, **{**TINY, "depth": 2})
    backbone = load_backbone(module)
    assert torch.isfinite(attach(backbone, "vpt(length=2)", 3)(images())).all()
    with pytest.raises(UnsupportedError, match=r"do not compute one attention of a known kind.*vpt concatenates"):
        attach(backbone, method, 3)


@pytest.mark.parametrize("method", ["adaptive(length=2) + ssf", "ssf + adaptive(length=2)"])
def test_adaptive_in_a_sum_wraps_the_norm_last(method: str) -> None:
    torch.manual_seed(0)
    assert torch.isfinite(attach(backbone_of("vit"), method, 3)(images())).all()


def test_adaptive_after_a_forward_pass_that_failed_answers_as_before() -> None:
    model = attach(backbone_of("vit"), "adaptive(length=2)", 3).eval()
    expected, prompts = model(images()), next(m for m in model.modules() if type(m).__name__ == "_MapPrompts")

    def fail(*_: Any) -> None:
        raise MemoryError

    handle = prompts.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        model(images())
    handle.remove()
    assert torch.equal(model(images()), expected)


def test_adapters_after_blocks_of_swin_with_shallow_prompts_are_refused() -> None:
    terms = ["vpt(length=2, depth=shallow)", "adapter(reduction=4, position=post)"]
    for method in (" + ".join(terms), " + ".join(terms[::-1])):
        with pytest.raises(UnsupportedError, match="write position=mlp"):
            attach(backbone_of("swin"), method, 3)


@pytest.mark.parametrize(
    "method", ["lora(rank=8, rank_dropout=0.5)", "vpt(length=3, dropout=0) + lora(rank_dropout=0.5)"]
)
def test_rank_dropout_reaches_the_last_block_and_the_prompts(method: str) -> None:
    """The last block reads the weight of its queries, keys and values, and never calls the layer."""
    torch.manual_seed(0)
    model = attach(backbone_of("vit"), method, 3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".up"):
                weight.normal_() if "blocks.2." in name and ".qkv." in name else weight.zero_()
    answers = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        answers.append(model.features(images()))
    assert torch.equal(answers[0], answers[1]) and not torch.allclose(answers[0], answers[2])


def test_lora_with_rank_dropout_merged_in_train_mode_has_all_ranks() -> None:
    model = attach(backbone_of("vit"), "lora(rank=8, rank_dropout=0.5)", 3)
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.normal_(std=0.1)
    layer: Any = model.wrappers()["blocks.0.attn.qkv"]
    assert layer.training and not torch.equal(layer.weight, layer.merged_state()["weight"])
    assert torch.equal(layer.merged_state()["weight"], layer.eval().weight)


def test_adaptive_with_a_kernel_larger_than_the_map_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="make no square map of at least 9 x 9"):
        attach(backbone_of("vit"), "adaptive(kernel=9)", 3)


@pytest.mark.parametrize("length", [16, 17, 30])
def test_adaptive_of_any_length_gives_the_same_in_each_pass(length: int) -> None:
    """The family has 16 patches: as many prompts as patches, and more, are no tokens of a block."""
    model = attach(backbone_of("vit"), f"adaptive(length={length})", 3).eval()
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.normal_(generator=torch.Generator().manual_seed(0))
        first, second = model(images()), model(images())
    assert torch.equal(first, second)


@pytest.mark.parametrize("method", ["cross(length=3) + adaptformer", "adaptformer + cross(length=3)"])
@torch.no_grad()
def test_cross_with_adaptformer_equals_one_step_after_the_other(method: str) -> None:
    torch.manual_seed(0)
    model, frozen = attach(backbone_of("vit"), method, 3).eval(), backbone_of("vit").module
    for weight in model.trainable_parameters():
        weight.normal_(std=0.3)
    wrappers: dict[str, Any] = model.wrappers()
    x = frozen.norm_pre(frozen._pos_embed(frozen.patch_embed(images())))
    for path, block in ((f"blocks.{index}", block) for index, block in enumerate(frozen.blocks)):
        x = x + block.attn(block.norm1(x))
        x = x + wrappers[f"{path}.norm2"].cross(x)
        beside = wrappers[f"{path}.mlp"]
        x = x + block.mlp(block.norm2(x)) + beside.scale * beside.branch(x)
    torch.testing.assert_close(model.features(images()), frozen.norm(x)[:, 0], rtol=1e-5, atol=1e-5)


def test_adapter_in_a_sum_is_drawn_in_the_order_of_the_terms() -> None:
    torch.manual_seed(0)
    alone = attach(backbone_of("vit"), "adapter(reduction=4)", 3).trainable_state_dict()
    torch.manual_seed(0)
    both = attach(backbone_of("vit"), "adapter(reduction=4) + vpt(length=2)", 3).trainable_state_dict()
    names = [name for name in alone if not name.startswith("head")]
    assert names and all(torch.equal(alone[name], both[name]) for name in names)
