"""Layer-wise learning rates are timm's: of the same groups, in a training step, and where they have no meaning."""

from __future__ import annotations

import pytest
import torch
from timm.optim import param_groups_layer_decay

from helpers.families import backbone_of
from helpers.two_processes import CONFIG, examples, model
from vpt import attach
from vpt.errors import SpecError
from vpt.tasks.classification import train
from vpt.tasks.classification.training import make_objective
from vpt.training import Callback, TrainingConfig
from vpt.training.layer_decay import layer_lr_scales

DECAYED = CONFIG.replace(layer_decay=0.5, epochs=2)


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *(("vit", method) for method in ("full", "partial(k=1)", "bias", "norm", "ssf", "lora(rank=2)")),
        *((family, "full") for family in ("swin", "convnext", "eva02")),
    ],
)
def test_optimizer_with_layer_decay_has_timms_groups(family, method):
    tuned = attach(backbone_of(family), method, 3)
    named = dict(tuned.trainable_state_dict())
    config = TrainingConfig(layer_decay=0.75, weight_decay=0.05)
    optimizer = config.make_optimizer(named, list(tuned.head.parameters()), layer_lr_scales(tuned, 0.75))
    trainable = {id(weight) for weight in tuned.trainable_parameters()}
    expected = {
        id(weight): (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(tuned, weight_decay=0.05, layer_decay=0.75)
        for weight in group["params"]
        if id(weight) in trainable
    }
    found = {
        id(weight): (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert found == expected and len(found) == len(trainable)
    assert len({scale for scale, _ in found.values()}) > 1


def test_layer_decay_of_full_halves_the_rate_from_block_to_block():
    scales = layer_lr_scales(model("full"), 0.5)
    blocks = [scales[f"backbone.blocks.{k}.mlp.fc1.weight"] for k in range(len(model("full").layout.blocks))]
    assert scales["head.weight"] == 1 and scales["backbone.norm.weight"] == 0.5
    assert blocks == [0.5 ** (len(blocks) - k) for k in range(len(blocks))]
    assert scales["backbone.patch_embed.proj.weight"] == 0.5 ** (len(blocks) + 1)


def test_train_with_layer_decay_moves_each_layer_at_its_rate():
    tuned, plain = model("full"), model("full")
    start = {name: tensor.clone() for name, tensor in plain.trainable_state_dict().items()}
    config = CONFIG.replace(epochs=1, batch_size=24, weight_decay=0.0)
    train(plain, examples(), config)
    train(tuned, examples(), config.replace(layer_decay=0.5))
    scales = layer_lr_scales(tuned, 0.5)
    for name, tensor in tuned.trainable_state_dict().items():
        moved, whole = tensor - start[name], plain.trainable_state_dict()[name] - start[name]
        assert torch.allclose(moved, scales[name] * whole, rtol=1e-3, atol=1e-7), name


class Interrupt(Callback):
    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        if (epoch, step) == (2, 2):
            raise KeyboardInterrupt


def test_train_resumed_with_layer_decay_is_bit_identical(tmp_path):
    unbroken, again = model("full"), model("full")
    train(unbroken, examples(), DECAYED)
    with pytest.raises(KeyboardInterrupt):
        train(model("full"), examples(), DECAYED, checkpoint=tmp_path / "c.safetensors", callback=Interrupt())
    train(again, examples(), DECAYED, checkpoint=tmp_path / "c.safetensors")
    for name, tensor in unbroken.trainable_state_dict().items():
        assert torch.equal(again.trainable_state_dict()[name], tensor), name


@pytest.mark.parametrize("method", ["linear", "mlp", "vpt(length=3)"])
def test_train_with_layer_decay_of_what_trains_no_layer_is_refused(method):
    with pytest.raises(SpecError, match=r"layer_decay is 0.5, and .* trains nothing in the layers of the backbone"):
        train(model(method), examples(), DECAYED)


def test_train_with_layer_decay_of_a_backbone_without_layers_is_refused(monkeypatch):
    tuned = model("full")
    monkeypatch.delattr(type(tuned.trunk), "group_matcher")
    with pytest.raises(SpecError, match=r"layer_decay is 0.5, and .* does not say which layers it has"):
        train(tuned, examples(), DECAYED)


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.5])
def test_config_with_layer_decay_out_of_range_is_refused(decay):
    with pytest.raises(SpecError, match=f"layer_decay is {decay}; it must be above 0, and 1 for one rate"):
        CONFIG.replace(layer_decay=decay)


def test_layer_decay_of_one_trains_as_without():
    tuned = model("linear")
    objective = make_objective(tuned, {"train": examples()}, CONFIG, None, Callback())
    assert objective.config.training.layer_decay == 1
    assert set(layer_lr_scales(tuned, 1.0).values()) == {1.0}
