"""Weights that models share: what writes to them is noticed."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.utils import ModelEmaV3
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import vpt
from helpers.families import images, model_of
from vpt import Backbone, TunedModel, attach, load, load_backbone, save
from vpt.errors import BackboneError, TunedFileError
from vpt.serving.bank import Bank

WORDS = r"of the backbone vit_base_patch16_224\S* \(.*\) were written to after it .* attach to `backbone.copy\(\)`"


def optimize(model: TunedModel, kind: Any) -> None:
    """Train every parameter, as a loop that forgets what is frozen does."""
    for weight in model.parameters():
        weight.requires_grad_(True)
    optimizer = kind(model.parameters(), lr=0.01)
    model(images()).square().sum().backward()
    optimizer.step()


def load_all(model: TunedModel, _: Any) -> None:
    model.load_state_dict({name: tensor + 1e-3 for name, tensor in model.state_dict().items()})


@pytest.fixture
def backbone() -> Backbone:
    return load_backbone(model_of("vit"))


@pytest.mark.parametrize("change", [optimize, load_all])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_write_to_shared_weights_warns_when_any_model_is_saved_or_predicts(
    backbone: Backbone, tmp_path: Path, change: Any, kind: Any
) -> None:
    first, second = (attach(backbone, "vpt(length=2)", 2) for _ in range(2))
    path = save(second, tmp_path / "before.safetensors")
    assert not backbone.changed_weights()
    change(first, kind)
    assert len(backbone.changed_weights()) > 20
    with pytest.warns(UserWarning, match=WORDS):
        save(second, tmp_path / "after.safetensors")
    with pytest.warns(UserWarning, match=WORDS):
        vpt.predict(second, np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(TunedFileError, match="load the same weights"):
        load(path, backbone)


def test_bank_whose_backbone_was_changed_refuses_to_answer(backbone: Backbone, tmp_path: Path) -> None:
    model = attach(backbone, "vpt(length=2)", 2)
    save(model, tmp_path / "a.safetensors")
    bank, picture = Bank([tmp_path / "a.safetensors"], backbone=backbone), Image.new("RGB", (40, 40))
    before = bank.predict([bank.make_request("a", picture)])
    weights = copy.deepcopy(backbone.module.state_dict())
    optimize(model, torch.optim.SGD)
    with pytest.raises(BackboneError, match=f"a cannot be predicted: .* {WORDS}"):
        bank.predict([bank.make_request("a", picture)])
    backbone.module.load_state_dict(weights)  # the very same values are no change
    assert bank.predict([bank.make_request("a", picture)]) == before


def test_model_on_a_copy_of_the_backbone_changes_no_other(backbone: Backbone, tmp_path: Path) -> None:
    first, second = attach(backbone.copy(), "vpt(length=2)", 2), attach(backbone, "vpt(length=2)", 2).eval()
    with torch.no_grad():
        before = second(images())
    optimize(first, torch.optim.AdamW)
    with torch.no_grad():
        assert torch.equal(second(images()), before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(second, tmp_path / "a.safetensors")
    assert first.backbone.changed_weights() and not backbone.changed_weights()
    assert backbone.copy().fingerprint() == backbone.fingerprint()


def test_training_of_the_trainable_parameters_is_no_change(backbone: Backbone, tmp_path: Path) -> None:
    model = attach(backbone, "vpt(length=2) + bias", 2)
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=0.1)
    model(images()).square().sum().backward()
    optimizer.step()
    model.load_trainable_state_dict({name: tensor * 2 for name, tensor in model.trainable_state_dict().items()})
    assert not backbone.changed_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(save(model, tmp_path / "a.safetensors"), backbone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_of_a_deep_copy_whose_frozen_weights_have_other_values_warns(
    backbone: Backbone, tmp_path: Path, dtype: torch.dtype
) -> None:
    model = copy.deepcopy(attach(backbone, "vpt(length=2) + norm", 2)).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(model, tmp_path / "a.safetensors")
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    assert not backbone.changed_weights()
    with pytest.warns(UserWarning, match=r"has \d+ frozen weights \(.*\) with other values than its backbone vit_base"):
        save(model, tmp_path / "b.safetensors")


def multiply_and_add(average: torch.nn.Module, model: torch.nn.Module) -> None:
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.mul_(0.9).add_(weight, alpha=0.1)


@pytest.mark.parametrize("method", ["vpt(length=2)", "bias", "full"])
@pytest.mark.parametrize("kind", ["by hand", "torch", "timm"])
def test_moving_average_of_a_model_leaves_the_backbone_and_saves_without_a_warning(
    backbone: Backbone, tmp_path: Path, method: str, kind: str
) -> None:
    weights = copy.deepcopy(backbone.module.state_dict())
    model = attach(backbone, method, 2)
    if kind == "torch":
        average: Any = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        update = average.update_parameters
    elif kind == "timm":
        average = ModelEmaV3(model, decay=0.9)
        update = average.update
    else:
        average = copy.deepcopy(model)
        update = partial(multiply_and_add, average)
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.add_(1)
        update(model)
        for weight in model.trainable_parameters():
            weight.add_(1)
        update(model)
        assert not torch.equal(average.eval()(images()), model.eval()(images()))
    assert all(torch.equal(weight, weights[name]) for name, weight in backbone.module.state_dict().items())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(average, tmp_path / "a.safetensors")


def test_backbone_that_is_moved_and_cast_is_no_change() -> None:
    backbone = load_backbone(model_of("resnet"))
    backbone.module.to(torch.float64).to(torch.float32)
    assert not backbone.changed_weights()


def test_fingerprint_of_a_resized_backbone_follows_a_change() -> None:
    backbone = load_backbone(image_size=60)
    first = backbone.fingerprint()
    with torch.no_grad():
        backbone.module.norm.bias[0] += 1  # type: ignore[union-attr,operator,index]
    assert backbone.fingerprint() not in (first, load_backbone().fingerprint())
