"""timm's tools on a tuned model: data configuration, groups of parameters, intermediate features, classifier."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import timm.data
import timm.optim
import torch
from PIL import Image

from helpers.families import SIZE, backbone_of, images, model_of
from vpt import attach, load_backbone
from vpt.errors import SpecError, UnsupportedError
from vpt.model.label_kinds import MultiLabel, Regression


@pytest.mark.parametrize("size", [48, 96])
@pytest.mark.parametrize("method", ["linear", "vpt(length=2)"])
def test_data_config_makes_the_tensors_of_the_backbone(method: str, size: int) -> None:
    backbone = load_backbone("test_vit", image_size=size, pretrained=False)
    backbone = replace(backbone, preprocessing=replace(backbone.preprocessing, mean=(0.1, 0.2, 0.3)))
    tuned = attach(backbone, method, 3)
    config = timm.data.resolve_model_data_config(tuned)
    assert config["input_size"] == (3, size, size) and config["mean"] == (0.1, 0.2, 0.3)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    expected = backbone.transform()(photo)
    assert torch.allclose(timm.data.create_transform(**config)(photo), expected, atol=1e-5)


def test_data_config_of_cropped_images_has_the_crop() -> None:
    backbone = load_backbone("test_vit", image_size=96, pretrained=False)
    cropped = replace(backbone, preprocessing=replace(backbone.preprocessing, resize="crop", crop_fraction=0.75))
    config = timm.data.resolve_model_data_config(attach(cropped, "linear", 3), use_test_size=True)
    assert (config["crop_mode"], config["crop_pct"], config["input_size"][1:]) == ("center", 0.75, (96, 96))


def test_default_cfg_counts_classes() -> None:
    tuned = attach(backbone_of("vit"), "linear", 3)
    assert tuned.default_cfg["num_classes"] == 3 and tuned.default_cfg["classifier"] == "head"
    assert tuned.num_features == model_of("vit").num_features == 32


def test_layer_decay_scales_rates_as_timm_does_for_the_backbone() -> None:
    tuned = attach(backbone_of("vit-avg"), "full", 3)  # no block is restated for the class token alone
    groups = timm.optim.param_groups_layer_decay(tuned, weight_decay=0.1, layer_decay=0.5)
    scales = {id(weight): group["lr_scale"] for group in groups for weight in group["params"]}
    names = {name: scales[id(weight)] for name, weight in tuned.named_parameters()}
    backbone = model_of("vit-avg")
    backbone.reset_classifier(3)
    plain_groups = timm.optim.param_groups_layer_decay(backbone, weight_decay=0.1, layer_decay=0.5)
    plain_scales = {id(weight): group["lr_scale"] for group in plain_groups for weight in group["params"]}
    plain = {name: plain_scales[id(weight)] for name, weight in backbone.named_parameters()}
    assert {name.removeprefix("network.trunk."): scale for name, scale in names.items()} == plain
    assert names["head.weight"] == 1 and names["network.trunk.blocks.0.mlp.fc1.weight"] == 0.5**3


def test_layer_decay_leaves_prompts_and_head_at_the_full_rate() -> None:
    tuned = attach(backbone_of("vit"), "vpt(length=2) + bias", 3)
    groups = timm.optim.param_groups_layer_decay(tuned, layer_decay=0.5)
    scales = {id(weight): group["lr_scale"] for group in groups for weight in group["params"]}
    named = {name: scales[id(weight)] for name, weight in tuned.named_parameters() if id(weight) in scales}
    assert {scale for name, scale in named.items() if "prompts" in name or "head" in name} == {1.0}
    assert min(named.values()) < 0.1


def test_no_weight_decay_names_parameters_of_the_tuned_model() -> None:
    tuned = attach(backbone_of("vit"), "full", 3)
    assert tuned.no_weight_decay() == {"network.trunk.cls_token", "network.trunk.pos_embed"}
    groups = timm.optim.param_groups_weight_decay(tuned, 0.1, no_weight_decay_list=tuned.no_weight_decay())
    decayed = {id(weight) for group in groups if group["weight_decay"] for weight in group["params"]}
    names = {name for name, weight in tuned.named_parameters() if id(weight) in decayed}
    assert "network.trunk.pos_embed" not in names and "network.trunk.blocks.0.attn.qkv.weight" in names


@pytest.mark.parametrize("family", ["vit", "dinov3", "swin", "convnext"])
def test_forward_intermediates_are_those_of_the_backbone(family: str) -> None:
    backbone = backbone_of(family)
    tuned = attach(backbone, "linear", 3).eval()
    with torch.no_grad():
        logits = tuned(images())
        expected = backbone.module.forward_intermediates(images(), indices=2, intermediates_only=True)
        found = tuned.forward_intermediates(images(), indices=2, intermediates_only=True)
        assert [x.shape for x in found] == [x.shape for x in expected]
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(found, expected, strict=True))
        assert torch.equal(tuned(images()), logits)


def test_forward_intermediates_with_prompts_end_in_the_feature() -> None:
    tuned = attach(backbone_of("vit"), "vpt(length=3)", 3).eval()
    with torch.no_grad():
        final, maps = tuned.forward_intermediates(images())
        assert [tuple(x.shape) for x in maps] == [(4, 32, SIZE // 8, SIZE // 8)] * 3
        assert torch.allclose(final[:, 0], tuned.features(images()), rtol=1e-4, atol=1e-5)
        frozen = attach(backbone_of("vit"), "linear", 3).eval().forward_intermediates(images())[1]
        assert not torch.allclose(maps[0], frozen[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("family", ["vit", "swin"])
@pytest.mark.parametrize("method", ["vpt(length=3, depth=shallow)", "vpt(length=2, location=pad, depth=shallow)"])
def test_forward_intermediates_with_prompts_in_them_are_refused(method: str, family: str) -> None:
    with pytest.raises(UnsupportedError, match="has no map of a block's output"):
        attach(backbone_of(family), method, 3).forward_intermediates(images())


def test_reset_classifier_makes_a_head_of_other_classes() -> None:
    tuned = attach(backbone_of("vit"), "vpt(length=2)", 3, classes=["a", "b", "c"]).eval()
    old = tuned.get_classifier()
    with torch.no_grad():
        features = tuned.features(images())
        tuned.reset_classifier(5)
        assert tuned.get_classifier() is tuned.head is not old
        assert torch.allclose(tuned(images()), tuned.head(features)) and tuned(images()).shape == (4, 5)
    assert (tuned.num_classes, tuned.classes) == (5, None)
    assert tuned.head.weight in set(tuned.trainable_parameters())
    for arguments in ((0,), (3, "avg")):
        with pytest.raises(SpecError, match="needs a class and no pooling"):
            tuned.reset_classifier(*arguments)


def test_reset_classifier_leaves_nothing_of_the_old_labels() -> None:
    tuned = attach(backbone_of("vit"), "linear", 3).eval()
    tuned.label_kind, tuned.class_colors = MultiLabel((0.1, 0.2, 0.3)), ("#000000", "#111111", "#222222")
    tuned.reset_classifier(5)
    assert tuned.label_kind == MultiLabel() and tuned.class_colors is None and not tuned.head.training
    tuned.label_kind = Regression(1.0, 2.0)
    with pytest.raises(SpecError, match=r"reset_classifier\(2\): the model predicts a number"):
        tuned.reset_classifier(2)


def test_tuned_model_can_be_pickled() -> None:
    tuned = attach(backbone_of("vit"), "vpt(length=2)", 3).eval()
    copied = pickle.loads(pickle.dumps(tuned))
    batch = images(2)
    assert torch.equal(copied(batch), tuned(batch))
