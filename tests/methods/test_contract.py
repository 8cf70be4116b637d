"""Methods on the families they claim keep the whole contract."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from helpers.families import TINY, backbone_of, images
from vpt import METHODS, Full, Injection, Linear, Method, attach, parse_method
from vpt.backbones.layout import BackboneLayout
from vpt.errors import BackboneError, SpecError, UnsupportedError, VptError
from vpt.testing import (
    CHECKS,
    Check,
    check_compile,
)

DEEP, SHALLOW = "vpt(length=3)", "vpt(length=3, depth=shallow)"
PAD = "vpt(length=2, location=pad, depth=shallow)"
# One family for each thing that differs: attention, place of tokens, pooling. The tests of exactness have every family.
TOKENS = ("vit", "vit-avg", "dinov2-reg", "dinov3", "eva02-unfused", "beit", "siglip")
MAPS = ("convnext", "resnet")
SIDE = "sidetune(network=test_convnext)"
EVERYWHERE = ("linear", "head2toe", "mlp", "partial", "bias", "norm", "ssf", "full", SIDE, PAD)
ZERO_INIT = "vpt(length=3, attention=zero_init)"
BLOCKS = (
    "adapter(reduction=4)",
    "adaptformer(bottleneck=4)",
    "lora(rank=2, targets=all)",
    DEEP,
    SHALLOW,
    ZERO_INIT,
    "cross(length=3)",
    "prefix(length=3)",
)
# Methods after VPT, on families besides those of BLOCKS: position codes, norms of keys, unfused projections, pooling.
BEYOND_VPT = (
    "cross(length=3)",
    "prefix(length=3)",
    ZERO_INIT,
    "adaptive(length=2)",
    "vpt(length=4, rank=2)",
    "vpt(length=4, fourier=0.5)",
    "adapter(reduction=4, position=post, init=houlsby, scale=channel, drop_path=0.1)",
    "lora(rank=8, rank_dropout=0.2)",
    "cross(length=3, gate=true)",
)
SEQUENCES = ("gated(length=3)", "adaptive(length=2)", "class_token")
VARIANTS = (
    "vpt(length=3, impl=concat)",
    "vpt(length=3, depth=1-2)",
    "vpt(length=3, depth=2-3)",
    "vpt(length=3, depth=1-2, drop_after=true)",
    "vpt(location=add)",
    "vpt(location=add_1, depth=shallow)",
    "vpt(length=2, location=prepend_pixel, depth=shallow)",
    "vpt(length=2, location=concat_channel, depth=shallow)",
    "linear(output=image_mean)",
    "linear(output=cls_image_mean)",
    "vpt(length=3, output=image_mean)",
    "vpt(length=3, output=prompt_mean)",
    "vpt(length=3, output=global_max, depth=shallow)",
    "vpt(length=3, shared=blocks)",
    "vpt(length=3, shared=prompts)",
    "vpt(length=3, shared=all)",
    "vpt(length=3, projection=4)",
    "vpt(length=3, frozen=true)",
    "vpt(length=4, rank=2)",
    "vpt(length=4, fourier=0.5)",
    "vpt(length=3, init=tokens)",
    "vpt(length=3, init=vipamin, expansion=0.1)",
    "cross(length=3, gate=true)",
    "prefix(length=3, depth=2-3, shared=true) + bias",
    "cross(length=2, depth=2-3) + vpt(length=2) + bias",
    "adapter(reduction=4, position=post, init=houlsby, scale=channel, drop_path=0.1)",
    "lora(rank=8, rank_dropout=0.2)",
    "vpt(length=3) + bias",
    "vpt(length=3) + class_token",
    "vpt(length=3) + lora(rank=2, targets=all) + ssf + adapter(reduction=4)",
    "lora(rank=2, targets=queries_values)",
)
CASES = [
    *((method, family) for method in EVERYWHERE for family in ("vit", "beit", "swin", *MAPS)),
    *((method, family) for method in BLOCKS for family in ("vit", "beit", "swin")),
    *((method, "convnext-linear") for method in BLOCKS[:2]),
    *((method, family) for method in SEQUENCES for family in ("vit", "dinov3-cls")),
    ("gated(length=3, temperature=false)", "beit"),
    *(
        (method, family)
        for method in BEYOND_VPT
        for family in ("beit", "dinov2-reg", "dinov3", "siglip", "eva02-unfused")
    ),
    *((method, "swin") for method in BEYOND_VPT[4:]),
    *((method, "vit") for method in VARIANTS),
    *(
        (DEEP, family)
        for family in (*TOKENS[1:5], "vit-distilled", "vit-parallel", "rope-mixed", "beit-shared", "siglip")
    ),
    *((SHALLOW, family) for family in ("dinov3-cls", "siglip")),
    ("vpt(length=3, impl=concat)", "dinov3"),
    ("vpt(length=3, depth=2-3, output=prompt_mean)", "dinov3-cls"),
    ("vpt(length=3, pool_prompts=true)", "swin"),
    ("vpt(length=3, depth=shallow, pool_prompts=true, shared=prompts)", "swin"),
    ("vpt(length=3, projection=4) + lora(rank=2) + ssf", "swin"),
    ("lora(rank=2) + ssf + norm", "eva02-unfused"),
    ("full", "eva02"),
    *(("full(dropout=0.1, drop_path=0.2)", family) for family in ("vit", "swin")),
]
MULTI, MULTI_GRID = "multi_block(blocks=last2, features=cls+mean+std)", "multi_block(blocks=last2, features=mean)"
HEADED = [
    *((method, "vit", "setr_pup(channels=8)") for method in ("linear", DEEP, "lora(rank=2)")),
    (DEEP, "swin", "fpn(channels=8)"),
    ("bias", "resnet", "fpn(channels=8)"),
    *((method, "vit", MULTI) for method in ("linear", "mlp", DEEP, SHALLOW, PAD, "lora(rank=2)", "full")),
    ("sidetune(network=test_convnext)", "vit", MULTI),
    (DEEP, "beit", MULTI),
    *((method, "swin", MULTI_GRID) for method in (DEEP, SHALLOW)),
    *((method, family, MULTI_GRID) for method in ("linear", PAD) for family in MAPS),
    *(("full", family, MULTI_GRID) for family in MAPS),
]
COMPILED = [(DEEP, "dinov3"), (DEEP, "beit"), (SHALLOW, "vit"), (DEEP, "swin"), (SHALLOW, "swin"), (PAD, "resnet")]
COMPILED += [
    ("lora(rank=2) + ssf", "vit"),
    ("gated(length=3)", "vit"),
    ("adaptformer(bottleneck=4)", "vit"),
    ("sidetune(network=test_convnext)", "vit"),
]


@pytest.mark.parametrize(("method", "family"), CASES, ids=lambda value: value)
@pytest.mark.parametrize("check", [c for c in CHECKS if c is not check_compile], ids=lambda check: check.__name__)
def test_method_on_each_family_keeps_the_contract(check: Check, method: str, family: str) -> None:
    check(method, backbone_of(family))


def test_contract_cases_cover_every_method() -> None:
    missing = set(METHODS) - {parse_method(method).name for method, _ in CASES}
    assert not missing, (
        f"no case tests {', '.join(sorted(missing))}: add each to EVERYWHERE (any backbone), BLOCKS (transformers) or "
        "SEQUENCES (plain transformers with a class token) in tests/methods/test_contract.py"
    )


@pytest.mark.parametrize(("method", "family", "head"), HEADED, ids=lambda value: value)
@pytest.mark.parametrize("check", [c for c in CHECKS if c is not check_compile], ids=lambda check: check.__name__)
def test_method_with_another_head_keeps_the_contract(check: Check, method: str, family: str, head: str) -> None:
    check(method, backbone_of(family), head)


@pytest.mark.parametrize(("method", "family"), COMPILED, ids=lambda value: value)
def test_method_when_compiled_keeps_the_contract(method: str, family: str) -> None:
    """Compiling takes a second each, so not every family is tested."""
    check_compile(method, backbone_of(family))


class _Silent(Linear):
    """A faulty method: it wraps a module that the model never calls."""

    name = "silent"

    def plan(self, trunk, layout: BackboneLayout) -> Injection:
        return Injection(wrappers={"pos_drop.unused": lambda module: module})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("vpt", 0), SpecError, "num_classes is 0"),
        (("vpt", 2.5), SpecError, "num_classes is 2.5"),
        (("vpt", "3"), SpecError, "num_classes is '3'"),
        ((3, 3), SpecError, "the method is 3; give its text"),
        (("vpt", 3, ("a", "b")), SpecError, "2 class names were given for 3 classes"),
    ],
)
def test_attach_with_invalid_arguments_is_refused(arguments, error, message) -> None:
    method, count, *classes = arguments
    with pytest.raises(error, match=message):
        attach(backbone_of("vit"), method, count, classes=classes[0] if classes else None)
    with pytest.raises(BackboneError, match="the backbone is None"):
        attach(None, "vpt", 3)  # type: ignore[arg-type]


def test_attach_with_numpy_class_count_stores_an_int() -> None:
    count = np.array([0, 2, 1]).max() + 1
    assert type(attach(backbone_of("vit"), "linear", count).num_classes) is int


def test_attach_of_method_that_is_never_called_is_refused() -> None:
    backbone = backbone_of("vit")
    backbone.module.pos_drop.add_module("unused", type(backbone.module.pos_drop)())
    with pytest.raises(
        UnsupportedError,
        match=r"is injected at pos_drop\.unused .* never calls .* methods that fit: vpt, cross, prefix, ",
    ):
        attach(backbone, _Silent(), 3)


@pytest.mark.parametrize("method", [_Silent(), _Silent() + parse_method(DEEP)], ids=str)
def test_attach_of_unsupported_method_names_the_methods_that_fit(method: Method) -> None:
    backbone = backbone_of("vit")
    backbone.module.pos_drop.add_module("unused", type(backbone.module.pos_drop)())
    with pytest.raises(UnsupportedError, match="never calls") as refused:
        attach(backbone, method, 3)
    fit = set()
    for name in METHODS:
        try:
            attach(backbone, name, 3)
        except VptError:
            continue
        fit.add(name)
    assert set(str(refused.value).partition("methods that fit: ")[2].split(", ")) == fit
    assert {"adapter", "vpt"} <= fit


def test_sum_of_terms_with_equal_module_names_is_refused() -> None:
    with pytest.raises(SpecError, match=r"more than one term adds a module named 'prompts' \(vpt\(length=3\), gated\)"):
        attach(backbone_of("vit"), "vpt(length=3) + bias + gated", 3)


@pytest.mark.parametrize("family", MAPS)
@pytest.mark.parametrize("method", [DEEP, "gated", "class_token", "lora", "adapter", "vpt(location=add)"])
def test_transformer_method_on_convolutional_backbone_is_refused(method: str, family: str) -> None:
    with pytest.raises(
        UnsupportedError, match="methods that fit: linear, head2toe, mlp, partial, bias, norm, ssf, full"
    ):
        attach(backbone_of(family), method, 3)


@pytest.mark.parametrize(
    ("method", "family", "reason"),
    [
        ("partial(k=4)", "vit", "k is 4, but there are 3 blocks .*`full`"),
        ("vpt(depth=2-4)", "vit", "depth is 2-4, but there are 3 blocks"),
        (DEEP, "resnet", r"and ResNet has no blocks with attention; around the image they fit any backbone"),
        ("vpt(length=16, location=pad, depth=shallow)", "vit", "leaves nothing of an image of 32"),
        ("vpt(output=cls)", "siglip", "it has no class token"),
        ("linear(output=cls_image_mean)", "siglip", "it has no class token"),
        ("vpt(location=prepend_pixel, depth=shallow)", "naflex", "not made by one convolution"),
        ("linear(output=image_mean)", "resnet", "reads single tokens"),
        ("class_token", "siglip", "it has no class token"),
        ("gated", "swin", "those of SwinTransformer are windows"),
        ("vpt(drop_after=true)", "swin", "in windows prompts are prepended"),
        ("gated", "beit", "no place for a temperature; write gated"),
        ("adapter(reduction=64)", "vit", "reduction is 64, but .* has only 32 channels; give one of at most 32"),
        ("sidetune", "vit", "alexnet cannot read images of 32 px"),
    ],
)
def test_attach_of_unsupported_options_is_refused(method: str, family: str, reason: str) -> None:
    with pytest.raises(VptError, match=reason):
        attach(backbone_of(family), method, 3)


def test_merge_of_lora_and_bias_gives_a_timm_state_dict() -> None:
    backbone = backbone_of("vit")
    model = attach(backbone, "lora(rank=2) + bias", 3).eval()
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    fresh = timm.create_model("vit_base_patch16_224", num_classes=3, **TINY)
    fresh.load_state_dict(model.merge())
    with torch.no_grad():
        assert torch.allclose(fresh.eval()(images()), model(images()), rtol=1e-5, atol=1e-5)
    with pytest.raises(UnsupportedError, match="cannot be merged into the weights"):
        attach(backbone, "adapter(reduction=4)", 3).merge()
    with pytest.raises(UnsupportedError, match="has a head for which timm has no place"):
        attach(backbone, "mlp", 3).merge()
    with pytest.raises(UnsupportedError, match="a head for which timm has no place"):
        attach(backbone, "linear(output=cls_image_mean)", 3).merge()


def test_vpt_on_blocks_with_unknown_positions_is_refused() -> None:

    model = timm.create_model("eva02_tiny_patch14_224", num_classes=0, use_post_norm=True, **TINY)
    with pytest.raises(UnsupportedError, match="EvaBlockPostNorm ties every token to a place"):
        attach(model, DEEP, 3)


@pytest.mark.parametrize("kind", [Linear, Full])
def test_attach_with_method_object_keeps_it(kind: type[Method]) -> None:
    assert attach(backbone_of("vit"), kind(), 3).method == kind()
