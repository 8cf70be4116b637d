"""Weights files of every kind, and faulty ones."""

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

from helpers.families import TINY, images, model_of
from helpers.google_weights import google
from vpt.backbones.weights import load_weights
from vpt.errors import BackboneError


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


def tiny(**options: Any) -> nn.Module:
    """A fresh model: what a weights file must turn into `model_of("vit")`."""
    return timm.create_model("vit_base_patch16_224", num_classes=0, **{**TINY, **options})


@pytest.mark.parametrize("file_classes", [0, 7])
def test_load_weights_into_a_model_with_a_classifier_leaves_it(tmp_path, file_classes):
    """Whether the file has none or one for other classes: a tuned model has a head of its own."""
    head = {"head.weight": torch.randn(7, 32), "head.bias": torch.randn(7)} if file_classes else {}
    save_file({**state(), **head}, tmp_path / "w.safetensors")
    model = model_of("vit")
    model.reset_classifier(10)
    before = model.head.weight.clone()
    assert load_weights(model, tmp_path / "w.safetensors") == ()
    assert torch.equal(model.head.weight, before)
    model.reset_classifier(0)
    assert_loaded(model)


def test_load_weights_of_npz_into_a_model_with_a_classifier_leaves_it(tmp_path):
    np.savez(tmp_path / "w.npz", **google(model_of("vit")))
    model = model_of("vit")
    model.reset_classifier(10)
    load_weights(model, tmp_path / "w.npz")
    model.reset_classifier(0)
    assert_loaded(model)
