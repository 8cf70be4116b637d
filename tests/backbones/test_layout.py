"""The parts of a model: tokens, patches and norms are told apart where the model's own attributes mislead."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from helpers.families import SIZE, TINY, backbone_of, images
from vpt import Backbone, attach, load_backbone
from vpt.backbones.layout import is_norm
from vpt.errors import UnsupportedError


def registers_without_class_token() -> Backbone:
    name = "vit_medium_patch16_reg4_gap_256"
    return load_backbone(timm.create_model(name, pretrained=False, num_classes=0, **TINY))


def hybrid() -> Backbone:
    options = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64}
    return load_backbone(timm.create_model("vit_tiny_r_s16_p8_224", pretrained=False, num_classes=0, **options))


@pytest.mark.parametrize("method", ["linear(output=cls)", "linear(output=cls_image_mean)", "vpt(output=cls)"])
def test_pooling_of_a_class_token_where_only_registers_are_is_refused(method: str) -> None:
    with pytest.raises(UnsupportedError, match="it has no class token"):
        attach(registers_without_class_token(), method, 3)


def test_features_of_blocks_leave_out_a_class_token_where_only_registers_are() -> None:
    backbone = registers_without_class_token()
    with pytest.raises(UnsupportedError, match="has none; write features=mean"):
        attach(backbone, "linear", 3, head="multi_block(blocks=last2)")
    assert attach(backbone, "head2toe", 3).added_modules["selection"].total == 3 * 2 * 32


@pytest.mark.parametrize(
    ("family", "has_class_token"), [("vit", True), ("beit", True), ("eva02", True), ("siglip", False), ("swin", False)]
)
def test_layout_knows_whether_there_is_a_class_token(family: str, has_class_token: bool) -> None:
    assert attach(backbone_of(family), "linear", 3).layout.has_class_token == has_class_token


def test_patch_size_of_naflex_is_that_of_its_grid() -> None:
    model = attach(backbone_of("naflex"), "linear", 3, head="setr_pup(channels=8)").eval()
    assert model.layout.patch_size == TINY["patch_size"]
    assert [tuple(x.shape) for x in model.features(images())] == [(4, 32, SIZE // 8, SIZE // 8)]


def test_patch_size_of_a_hybrid_is_that_of_its_grid() -> None:
    model = attach(hybrid(), "linear", 3, head="setr_pup(channels=8)").eval()
    assert model.layout.patch_size == 32
    assert [tuple(x.shape) for x in model.features(torch.zeros(1, 3, 64, 64))] == [(1, 32, 2, 2)]


@pytest.mark.parametrize("location", ["concat_channel", "prepend_pixel"])
def test_prompts_in_pixels_of_a_hybrid_are_refused(location: str) -> None:
    with pytest.raises(UnsupportedError, match="its patches are not made by one convolution"):
        attach(hybrid(), f"vpt(length=2, depth=shallow, location={location})", 3)


def test_dense_head_on_patches_of_no_square_is_refused() -> None:
    from vpt.heads.feature_maps import build_feature_maps

    model = attach(backbone_of("vit"), "linear", 3)
    with pytest.raises(UnsupportedError, match="has 17 patches, which make no square map"):
        build_feature_maps(model.trunk, replace(model.layout, num_tokens=model.layout.num_tokens + 1), ())


@pytest.mark.parametrize("norm", [timm.layers.SimpleNorm(4), timm.layers.SimpleNorm2d(4), nn.RMSNorm(4)])
def test_norms_of_timm_and_torch_are_norms(norm: nn.Module) -> None:
    assert is_norm(norm)


@pytest.mark.parametrize(
    ("family", "method"),
    [("swin", "ssf"), ("convnext", "ssf"), ("swin", "vpt(location=concat_channel, depth=shallow)")],
)
def test_model_in_bf16_with_all_weights_frozen_answers(family: str, method: str) -> None:
    backbone = backbone_of(family)
    model = attach(replace(backbone, module=backbone.module.bfloat16()), method, 3).eval()
    with torch.no_grad():
        expected = model(images())
        assert torch.equal(model.requires_grad_(False)(images()), expected)
        assert model.double()(images()).dtype == torch.float64
