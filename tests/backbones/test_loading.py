"""Backbones: weights files of every kind, faulty ones, fingerprints, names."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from helpers.families import TINY, images, model_of, randomize
from helpers.google_weights import google
from vpt import Backbone, attach, inspect, load_backbone, save
from vpt.backbones import DEFAULT, list_backbones
from vpt.backbones.weights import load_weights
from vpt.errors import BackboneError
from vpt.model.tuned_file import backbone_for

NAME = "test_vit"  # the smallest ViT that timm knows by name


def tiny(**options: Any) -> nn.Module:
    """A fresh model: what a weights file must turn into `model_of("vit")`."""
    return timm.create_model("vit_base_patch16_224", num_classes=0, **{**TINY, **options})


def state() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model_of("vit").state_dict().items()}


def assert_loaded(model: nn.Module) -> None:
    with torch.no_grad():
        assert torch.equal(model.eval()(images()), model_of("vit")(images()))


def refusal(model: nn.Module, path: Path) -> str:
    with pytest.raises(BackboneError) as caught:
        load_weights(model, path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_load_weights_of_safetensors_file_restores_the_model(tmp_path):
    save_file(state(), tmp_path / "w.safetensors")
    model = tiny()
    assert load_weights(model, tmp_path / "w.safetensors") == ()
    assert_loaded(model)


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


def test_load_weights_of_safetensors_with_other_suffix_restores_the_model(tmp_path):
    save_file(state(), tmp_path / "w.st")
    model = tiny()
    assert load_weights(model, tmp_path / "w.st") == ()
    assert_loaded(model)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".th"])
def test_load_weights_of_pytorch_file_restores_the_model(tmp_path, suffix):
    torch.save(state(), tmp_path / f"w{suffix}")
    model = tiny()
    load_weights(model, tmp_path / f"w{suffix}")
    assert_loaded(model)


@pytest.mark.parametrize("prefix", ["", "module.", "module.base_encoder.", "backbone."])
@pytest.mark.parametrize("nest", [None, "model", "state_dict", "state_dict_ema"])
def test_load_weights_with_nesting_and_prefix_restores_the_model(tmp_path, nest, prefix):
    weights = {prefix + name: tensor for name, tensor in state().items()}
    torch.save({nest: weights, "epoch": 3} if nest else weights, tmp_path / "w.pth")
    model = tiny()
    assert load_weights(model, tmp_path / "w.pth") == ()
    assert_loaded(model)


def test_load_weights_with_ema_weights_prefers_them(tmp_path):
    other = {name: torch.zeros_like(tensor) for name, tensor in state().items()}
    torch.save({"state_dict": other, "state_dict_ema": state()}, tmp_path / "w.pth")
    model = tiny()
    load_weights(model, tmp_path / "w.pth")
    assert_loaded(model)


def test_load_weights_with_extra_keys_omits_them_with_a_note(tmp_path):
    mocov3 = {f"module.base_encoder.{name}": tensor for name, tensor in state().items()}
    mocov3 |= {"module.base_encoder.head.0.weight": torch.zeros(2), "module.momentum_encoder.cls_token": torch.zeros(2)}
    torch.save({"state_dict": mocov3}, tmp_path / "moco.pth")
    model = tiny()
    notes = load_weights(model, tmp_path / "moco.pth")
    assert_loaded(model)
    assert not any("fit nothing" in note for note in notes)

    save_file({**state(), "head.weight": torch.zeros(5, 32), "odd.weight": torch.zeros(1)}, tmp_path / "o.safetensors")
    (note,) = load_weights(tiny(), tmp_path / "o.safetensors")
    assert "1 keys fit nothing" in note and "odd.weight" in note and "head.weight" not in note


class PickleWithCode:
    """A pickle that does something when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_load_weights_of_pickle_with_code_is_refused_and_not_run(tmp_path, how):
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    content = {"state_dict": state(), "args": PickleWithCode(trace)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"args": PickleWithCode(trace)}, protocol=2))
    assert "could run code" in refusal(tiny(), path)
    assert not trace.exists()


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_load_weights_of_google_npz_restores_the_model(tmp_path, prefix):
    np.savez(tmp_path / "ViT.npz", **google(model_of("vit"), prefix))
    model = tiny()
    assert load_weights(model, tmp_path / "ViT.npz") == ()
    assert_loaded(model)


def test_load_weights_of_npz_at_another_size_resizes_positions(tmp_path):
    np.savez(tmp_path / "ViT.npz", **google(model_of("vit")))
    model: Any = tiny(img_size=48)
    load_weights(model, tmp_path / "ViT.npz")
    assert model.pos_embed.shape == (1, 1 + 36, 32)
    assert torch.equal(model.pos_embed[:, :1], model_of("vit").pos_embed[:, :1])


def test_load_weights_of_unsuitable_npz_is_refused(tmp_path):
    path = tmp_path / "ViT.npz"
    weights = google(model_of("vit"))
    np.savez(path, **weights)
    assert "does not fit VisionTransformer" in refusal(tiny(embed_dim=64), path)
    assert "does not fit VisionTransformer" in refusal(tiny(depth=4), path)
    assert "does not fit VisionTransformer" in refusal(tiny(depth=2), path)
    assert "no .npz layout" in refusal(model_of("resnet"), path)
    path.write_bytes(path.read_bytes()[:5000])
    refusal(tiny(), path)
    np.savez(path, cls=np.array([PickleWithCode(tmp_path / "trace")], dtype=object))
    refusal(tiny(), path)
    assert not (tmp_path / "trace").exists()


def test_load_weights_at_another_size_resizes_positions(tmp_path):
    save_file(state(), tmp_path / "w.safetensors")
    model: Any = tiny(img_size=64)
    load_weights(model, tmp_path / "w.safetensors")
    assert model.pos_embed.shape == (1, 1 + 64, 32)
    assert torch.equal(model.pos_embed[:, :1], state()["pos_embed"][:, :1])
    # The same surface on a finer grid: its mean stays.
    assert torch.allclose(model.pos_embed[:, 1:].mean(1), state()["pos_embed"][:, 1:].mean(1), atol=0.05)


def test_load_weights_with_missing_keys_lists_them(tmp_path):
    weights = state()
    del weights["blocks.1.mlp.fc1.bias"], weights["norm.weight"]
    save_file(weights, tmp_path / "w.safetensors")
    message = refusal(tiny(), tmp_path / "w.safetensors")
    assert "missing in the file: blocks.1.mlp.fc1.bias, norm.weight" in message


def test_load_weights_with_wrong_shapes_lists_them_and_loads_nothing(tmp_path):
    weights = state()
    weights["blocks.1.mlp.fc1.bias"] = torch.zeros(5)
    save_file(weights, tmp_path / "w.safetensors")
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert "blocks.1.mlp.fc1.bias: (5,) in the file, (128,) in the model" in refusal(model, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_load_weights_with_many_missing_keys_truncates_the_list(tmp_path):
    save_file({"odd": torch.zeros(1)}, tmp_path / "w.safetensors")
    assert ", and 30 more" in refusal(tiny(), tmp_path / "w.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5])
def test_load_weights_of_truncated_file_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"w{suffix}"
    save_file(state(), path) if suffix == ".safetensors" else torch.save(state(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refusal(tiny(), path)


def test_load_weights_of_absent_or_empty_file_is_refused(tmp_path):
    assert "does not exist" in refusal(tiny(), tmp_path / "absent.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    assert "holds no weights" in refusal(tiny(), tmp_path / "list.pth")
    torch.save({"epoch": 1}, tmp_path / "empty.pth")
    assert "holds no weights" in refusal(tiny(), tmp_path / "empty.pth")


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
    assert same_size.fingerprint() != backbone.fingerprint()


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


def test_load_backbone_of_non_square_model_is_refused():
    with pytest.raises(BackboneError, match="32x64 px; only square"):
        load_backbone(tiny(img_size=(32, 64)))


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
