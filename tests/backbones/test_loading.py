"""Backbones: weights files of every kind, faulty ones, fingerprints, names."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from helpers.families import TINY, model_of, randomize
from vpt import Backbone, attach, inspect, load_backbone, save
from vpt.backbones import DEFAULT, list_backbones
from vpt.errors import BackboneError
from vpt.model.named_backbone import backbone_for

NAME = "test_vit"  # the smallest ViT that timm knows by name


def test_load_backbone_of_model_instance_at_another_size_is_refused():
    model = model_of("vit")
    size = load_backbone(model).preprocessing.size
    for given in (model, load_backbone(model)):
        assert load_backbone(given, image_size=size).module is model
        with pytest.raises(BackboneError, match=f"made for {size} px, and {size + 16} are asked for"):
            load_backbone(given, image_size=size + 16)


@pytest.mark.parametrize("name", [NAME, DEFAULT])
def test_load_backbone_with_size_below_one_patch_is_refused(name):
    with pytest.raises(BackboneError, match=f"image_size is 4, less than one patch of {name}"):
        load_backbone(name, image_size=4, pretrained=False)


def test_load_backbone_with_global_pool_in_its_name_averages_before_the_norm(tmp_path):
    """How the official code reads MAE: the patches are averaged, and the final norm comes after."""
    source = timm.create_model(NAME, num_classes=0)
    randomize(source)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone(f"{NAME}(global_pool=avg)", weights=tmp_path / "w.safetensors")
    image = torch.randn(2, 3, backbone.preprocessing.size, backbone.preprocessing.size)
    norm, source.norm = source.norm, nn.Identity()
    with torch.no_grad():
        expected = norm(source.forward_features(image)[:, source.num_prefix_tokens :].mean(dim=1))
        assert torch.equal(backbone.module(image), expected)
    save(attach(backbone, "vpt(length=2, output=global_mean)", 3), tmp_path / "tuned.safetensors")
    header = inspect(tmp_path / "tuned.safetensors")
    again = backbone_for(tmp_path / "tuned.safetensors", header, weights=tmp_path / "w.safetensors")
    assert again.fingerprint() == header.fingerprint


@pytest.mark.parametrize(("name", "pool"), [(NAME, "map"), (NAME, "mean"), ("resnet18", "token")])
def test_load_backbone_with_a_pooling_that_it_lacks_is_refused(name, pool):
    with pytest.raises(BackboneError, match=f"{name} cannot pool by '{pool}'"):
        load_backbone(f"{name}(global_pool={pool})", pretrained=False)


def test_load_backbone_by_name_with_file_at_another_size_resizes_positions(tmp_path):
    model = timm.create_model(NAME, num_classes=10)
    randomize(model)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone(NAME, weights=tmp_path / "w.safetensors", image_size=64)
    assert backbone.preprocessing.size == 64
    assert not backbone.module.training
    assert backbone.module(torch.zeros(1, 3, 64, 64)).shape == (1, 64)
    same_size = load_backbone(NAME, weights=tmp_path / "w.safetensors")
    assert same_size.fingerprint() == Backbone(model, NAME, same_size.preprocessing).fingerprint()
    assert same_size.fingerprint() == backbone.fingerprint()
    assert same_size.weights_digest() != backbone.weights_digest()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vit_base_patch16_244", "did you mean 'vit_base_patch16_224'"),
        ("vit_base_patch16_224.augreg", "weights of vit_base_patch16_224: did you mean 'augreg_in1k'"),
        ("zzzzzzzzzz", "vpt list backbones"),
    ],
)
def test_load_backbone_of_unknown_name_suggests_a_known_one(name, hint):
    with pytest.raises(BackboneError, match="unknown") as caught:
        load_backbone(name)
    assert hint in str(caught.value)


def test_fingerprint_with_any_changed_weight_differs():
    model: Any = model_of("vit")
    backbone = load_backbone(model)
    first = backbone.fingerprint()
    assert first.startswith("sha256:") and first == backbone.fingerprint()
    assert load_backbone(model_of("vit")).fingerprint() == first
    for name, tensor in model.state_dict().items():
        value = tensor.flatten()[0].clone()
        tensor.flatten()[0] += 1e-3
        assert backbone.fingerprint() != first, name
        tensor.flatten()[0] = value
    assert backbone.fingerprint() == first
    model.reset_classifier(7)
    assert backbone.fingerprint() == first
    assert load_backbone(model.half()).fingerprint() != first


def test_load_backbone_of_model_instance_keeps_it():
    model = model_of("vit")
    backbone = load_backbone(model)
    assert backbone.module is model
    assert load_backbone(backbone) is backbone
    assert backbone.preprocessing.size == 32
    assert backbone.name.startswith("vit_base_patch16_224")


@pytest.mark.parametrize(
    "make",
    [
        lambda: timm.create_model("resnet10t", pretrained=False, features_only=True),
        lambda: torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32),
    ],
)
def test_load_backbone_of_a_model_without_the_interface_of_timm_is_refused(make):
    with pytest.raises(BackboneError, match="has no forward_features; give a timm model made without features_only"):
        load_backbone(make())


def test_load_backbone_of_a_compiled_model_is_refused():
    with pytest.raises(BackboneError, match="is compiled; give the model itself, and compile the tuned model"):
        load_backbone(torch.compile(model_of("vit"), backend="eager"))


def test_load_backbone_of_a_quantized_model_is_refused():
    model = nn.Sequential(nn.Linear(2, 2)).eval()
    model.forward_features = model.forward_head = model.forward
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will drop its own quantization
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    with pytest.raises(BackboneError, match=r"is no tensor, as in quantized layers; .* quantize `model.plain\(\)`"):
        load_backbone(quantized)


def test_load_backbone_of_non_square_model_is_refused():
    with pytest.raises(BackboneError, match="32x64 px; only square"):
        load_backbone(timm.create_model("vit_base_patch16_224", num_classes=0, **{**TINY, "img_size": (32, 64)}))


def test_list_backbones_with_pattern_returns_a_subset():
    names = list_backbones()
    assert names[0] == DEFAULT
    assert "vit_base_patch16_224.augreg_in21k" in names
    assert set(list_backbones("deit3_*")) < set(names)
    assert all("deit3_" in name for name in list_backbones("deit3_*")[1:])


def test_load_backbone_with_published_weights_has_no_notes(shared):
    backbone = load_backbone(
        "deit_tiny_patch16_224", weights=shared / "weights" / "deit_tiny_patch16_224.in1k.safetensors"
    )
    assert backbone.notes == ()
    assert sum(weight.numel() for weight in backbone.module.parameters()) == 5_524_416
    with torch.no_grad():
        assert torch.isfinite(backbone.module(torch.zeros(1, 3, 224, 224))).all()


def test_repository_that_cannot_be_fetched_is_named_with_an_image_size(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> nn.Module:
        raise OSError("no such repository")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        BackboneError, match="the weights of 'hf-hub:owner/typo' could not be fetched: no such repository"
    ):
        load_backbone("hf-hub:owner/typo", image_size=96)


def test_load_backbone_of_a_convnet_at_hand_takes_any_size():
    model = model_of("resnet")
    for given in (model, load_backbone(model)):
        backbone = load_backbone(given, image_size=96)
        assert backbone.preprocessing.size == 96 and backbone.module is model


def test_load_backbone_of_a_model_whose_base_has_an_image_size_keeps_it():
    with pytest.raises(BackboneError, match="made for 224 px, and 96 are asked for"):
        load_backbone(timm.create_model("levit_128s", pretrained=False), image_size=96)


def test_load_backbone_of_the_embedded_model_with_another_pooling_averages():
    backbone = load_backbone(f"{DEFAULT}(global_pool=avg)")
    assert backbone.module.global_pool == "avg" and isinstance(backbone.module.norm, nn.Identity)


def test_load_backbone_with_parallel_first_convolutions_reads_their_channels():
    model = timm.create_model("mobileone_s0", pretrained=False, num_classes=0, in_chans=1)
    assert load_backbone(model).preprocessing.channels == 1
