"""The average of the weights equals timm's ModelEmaV3 in a plain loop, is scored and saved, and is resumed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open
from timm.utils import ModelEmaV3
from torch import nn

from helpers.two_processes import CONFIG, examples, model
from vpt import attach
from vpt.errors import SpecError
from vpt.tasks.classification import train
from vpt.tasks.classification.training import make_objective
from vpt.training import Callback, predict_logits, score_logits

AVERAGED = CONFIG.replace(ema=0.9, epochs=3)


class EveryStep(Callback):
    """Averages the whole model after each step, as timm's training script does."""

    def __init__(self, tuned: nn.Module) -> None:
        self.tuned, self.average, self.steps = tuned, ModelEmaV3(tuned, decay=0.9, use_warmup=True), 0

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        self.steps += 1
        self.average.update(self.tuned, step=self.steps)


class Interrupt(Callback):
    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        if (epoch, step) == (3, 2):
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["vpt(length=3)", "mlp", "full"])
def test_train_with_ema_equals_timms_model_ema_of_a_plain_run(method):
    plain, averaged = model(method), model(method)
    reference = EveryStep(plain)
    train(plain, examples(), AVERAGED.replace(ema=0.0), callback=reference)
    train(averaged, examples(), AVERAGED)
    expected = reference.average.module.trainable_state_dict()
    assert reference.steps == 9
    for name, tensor in averaged.trainable_state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert not torch.equal(averaged.head(torch.ones(1, averaged.width)), plain.head(torch.ones(1, plain.width)))


def test_train_with_ema_validates_the_average_and_trains_on_without_it():
    averaged, plain = model(), model()
    history = train(averaged, examples(), AVERAGED, validation=examples(seed=1))
    objective = make_objective(averaged, {"train": examples(seed=1)}, AVERAGED, None, Callback())
    scores = score_logits(predict_logits(averaged, objective.dataset), torch.from_numpy(examples(seed=1).labels))
    assert history[-1].val_loss == scores.loss
    unaveraged = train(plain, examples(), AVERAGED.replace(ema=0.0), validation=examples(seed=1))
    assert [epoch.train_loss for epoch in history] == [epoch.train_loss for epoch in unaveraged]
    assert [epoch.val_loss for epoch in history] != [epoch.val_loss for epoch in unaveraged]


@pytest.mark.parametrize("method", ["vpt(length=3, dropout=0.3)", "mlp"])
def test_train_resumed_with_ema_is_bit_identical(method, tmp_path):
    unbroken, again, finished = model(method), model(method), model(method)
    checkpoint = tmp_path / "c.safetensors"
    train(unbroken, examples(), AVERAGED)
    with pytest.raises(KeyboardInterrupt):
        train(model(method), examples(), AVERAGED, checkpoint=checkpoint, callback=Interrupt())
    for tuned in (again, finished):  # the second has nothing left to train
        train(tuned, examples(), AVERAGED, checkpoint=checkpoint)
        for name, tensor in unbroken.trainable_state_dict().items():
            assert torch.equal(tuned.trainable_state_dict()[name], tensor), name
    with safe_open(checkpoint, framework="pt") as file:
        assert {key for key in file.keys() if key.startswith("average.")} == {  # noqa: SIM118 (not a mapping)
            f"average.{name}" for name in unbroken.trainable_state_dict()
        }


def test_train_with_ema_leaves_the_backbone_unchanged():
    tuned = attach(model().backbone, "bias", 3)
    before = {name: tensor.clone() for name, tensor in tuned.backbone.module.state_dict().items()}
    train(tuned, examples(), AVERAGED.replace(epochs=1))
    assert all(torch.equal(before[name], tensor) for name, tensor in tuned.backbone.module.state_dict().items())
    assert np.isfinite(tuned.head.weight.detach().numpy()).all()


@pytest.mark.parametrize("ema", [-0.1, 1.0, 1.5])
def test_config_with_ema_out_of_range_is_refused(ema):
    with pytest.raises(SpecError, match=f"ema is {ema}; it must be 0 for none, or below 1, such as 0.999"):
        CONFIG.replace(ema=ema)
