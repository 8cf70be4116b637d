"""Training configurations: their values, the learning rate schedule, and the optimizer."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from helpers.comparison import max_relative_difference
from helpers.families import backbone_of
from helpers.two_processes import CONFIG, examples, model
from vpt import METHODS, VPT, Full, Linear, attach
from vpt.errors import SpecError
from vpt.tasks.classification import ClassificationConfig, train
from vpt.training import Callback, TrainingConfig
from vpt.tuning import make_job


class TestConfig:
    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ({"optimizer": "sdg"}, "optimizer is 'sdg'; did you mean 'sgd'"),
            ({"augment": "flipp"}, "'flipp' is no augmentation; did you mean 'flip'"),
            ({"precision": "fp16"}, "precision is 'fp16'"),
            ({"decay": "bias"}, "decay is 'bias'"),
            ({"epochs": 0}, "epochs is 0; it must be at least 1"),
            ({"batch_size": 0}, "batch_size is 0"),
            ({"grad_accum_steps": 0}, "grad_accum_steps is 0"),
            ({"grad_accum_steps": 9, "batch_size": 8}, "grad_accum_steps is 9, more than batch_size 8"),
            ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
            ({"learning_rate": -1.0}, "learning_rate is -1.0"),
            ({"learning_rate": math.inf}, "learning_rate is inf"),
            ({"learning_rate": math.nan}, "learning_rate is nan"),
            ({"weight_decay": -1e-4}, "weight_decay is -0.0001"),
            ({"weight_decay": math.nan}, "weight_decay is nan"),
            ({"weight_decay": math.inf}, "weight_decay is inf"),
            ({"warmup_epochs": math.inf}, "warmup_epochs is inf"),
            ({"warmup_epochs": -1}, "warmup_epochs is -1"),
            ({"warmup_epochs": math.nan}, "warmup_epochs is nan"),
            ({"probe_epochs": -1}, "probe_epochs is -1"),
            ({"head_lr_scale": -1}, "head_lr_scale is -1"),
            ({"probe_weight_decay": math.nan}, "probe_weight_decay is nan"),
            ({"val_interval": 0}, "val_interval is 0; it must be at least 1"),
            ({"learning_rate": "1e-3"}, "learning_rate is '1e-3'; it must be a number"),
            ({"ema": "0.9"}, "ema is '0.9'; it must be a number"),
            ({"block_rates": 3}, "block_rates is 3; it must be a text"),
            ({"learning_rate": True}, "learning_rate is True; it must be a number"),
        ],
    )
    def test_config_with_invalid_value_is_refused(self, choice, message):
        with pytest.raises(SpecError) as caught:
            ClassificationConfig.from_dict(choice)
        assert message in str(caught.value)

    def test_config_for_method_uses_the_defaults_of_the_method(self):
        assert ClassificationConfig.for_method(Full()).training.optimizer == "adamw"
        config = ClassificationConfig.for_method(VPT(), epochs=50, learning_rate=None, weight_decay=0.0)
        training = config.training
        assert (training.optimizer, training.learning_rate, training.weight_decay) == ("adamw", VPT.learning_rate, 0.0)
        assert ClassificationConfig.for_method(Linear()).training.optimizer == "sgd"
        assert config.warmup_epochs == 5
        assert ClassificationConfig.for_method(Linear(), epochs=100).warmup_epochs == 10
        assert ClassificationConfig.for_method(Linear(), epochs=100, warmup_epochs=0).warmup_epochs == 0

    def test_config_from_its_dict_is_equal(self):
        assert ClassificationConfig.from_dict(CONFIG.to_dict()) == CONFIG


class TestSchedule:
    def steps(self, **choices) -> list[float]:
        config = ClassificationConfig.from_dict(
            {"learning_rate": 2.56, "batch_size": 100, "epochs": 10, "warmup_epochs": 2, **choices}
        )
        return [config.lr_at(step, 10 * config.epochs, 10) for step in range(10 * config.epochs)]

    def test_lr_at_known_steps_equals_golden_values(self):
        steps = self.steps()
        golden = {
            0: 1 / 21,
            1: 2 / 21,
            19: 20 / 21,
            20: 1.0,
            40: 0.8535533905932737,
            60: 0.5,
            99: 0.0003854818796385495,
        }
        assert {step: steps[step] for step in golden} == pytest.approx(golden, rel=1e-6)

    def test_lr_at_all_steps_warms_up_and_decays(self):
        steps = self.steps()
        assert steps[0] > 0
        assert np.diff(steps[:21]) == pytest.approx([1 / 21] * 20)
        assert max(steps) == 1.0  # learning rate × batch / 256
        assert all(a > b for a, b in pairwise(steps[20:]))
        assert 0 < steps[-1] < 1e-3

    def test_lr_at_first_step_without_warmup_is_the_peak(self):
        assert self.steps(warmup_epochs=0)[0] == 1.0

    def test_lr_at_steps_of_warmup_longer_than_training_is_positive(self):
        steps = self.steps(epochs=1, warmup_epochs=50)
        assert all(step > 0 for step in steps) and max(steps) == 1.0

    def test_lr_at_the_only_step_is_positive(self):
        assert ClassificationConfig(TrainingConfig(learning_rate=256, batch_size=1), epochs=1).lr_at(0, 1, 1) > 0

    def test_train_with_callback_reports_the_scheduled_rates(self):
        rates: list[float] = []

        class LearningRates(Callback):
            def on_step(self, epoch, step, loss, lr):
                rates.append(lr)

        config = CONFIG.replace(epochs=3, warmup_epochs=1)
        history = train(model(), examples(), config, callback=LearningRates())
        assert rates == [config.lr_at(step, 9, 3) for step in range(9)]
        assert history[-1].lr == rates[-1]


class TestOptimizer:
    @pytest.mark.parametrize("decay", [0.0, 0.37])
    @pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
    def test_make_optimizer_with_weight_decay_applies_it_as_given(self, name, kind, decay):
        weight, bias = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3))
        config = TrainingConfig(optimizer=name, weight_decay=decay)
        optimizer = config.make_optimizer({"weight": weight, "bias": bias})
        assert type(optimizer) is kind
        found = {id(w): group["weight_decay"] for group in optimizer.param_groups for w in group["params"]}
        assert found == {id(weight): decay, id(bias): 0}
        weight.grad, bias.grad = torch.zeros(3, 2), torch.zeros(3)
        config.set_lr(optimizer, 0.1)
        optimizer.step()
        assert torch.allclose(weight, torch.full((3, 2), 1 - 0.1 * decay))
        assert torch.equal(bias, torch.ones(3))

    @pytest.mark.parametrize("decay", ["matrices", "official"])
    @pytest.mark.parametrize("name", ["sgd", "adamw"])
    def test_train_of_ssf_with_weight_decay_leaves_scales_at_one(self, name, decay):
        """A learning rate so small that only decay, a thousandfold stronger, could move a scale."""
        scaled = attach(backbone_of("vit"), "ssf", 3)
        options = {"optimizer": name, "learning_rate": 1e-4, "weight_decay": 1e3, "decay": decay}
        train(scaled, examples(), CONFIG.replace(epochs=2, **options))
        gammas = [tensor for key, tensor in scaled.trainable_state_dict().items() if key.endswith("gamma")]
        assert len(gammas) > 8
        assert all(torch.allclose(gamma, torch.ones(()), atol=1e-3) for gamma in gammas)

    @pytest.mark.parametrize(
        ("method", "optimizer", "decay", "expected"),
        [
            ("full", "adamw", "matrices", lambda name, weight: weight.dim() > 1),
            ("full", "sgd", "matrices", lambda name, weight: weight.dim() > 1),
            ("full", "adamw", "official", lambda name, weight: "bias" not in name),
            ("full", "sgd", "official", lambda name, weight: name != "head.bias"),
            ("mlp", "sgd", "official", lambda name, weight: name != "head.8.bias"),
            ("adapter(reduction=4)", "adamw", "official", lambda name, weight: "bias" not in name),
            ("vpt(length=3) + ssf", "adamw", "official", lambda name, weight: weight.dim() > 1),
            ("vpt(length=3) + ssf", "sgd", "all", lambda name, weight: True),
        ],
    )
    def test_decaying_of_a_method_names_the_tensors_of_the_rule(self, method, optimizer, decay, expected):
        tuned = attach(backbone_of("vit"), method, 3)
        parameters = dict(tuned.trainable_state_dict())
        parameters = {name: weight for name, weight in parameters.items() if isinstance(weight, nn.Parameter)}
        config = TrainingConfig(optimizer=optimizer, decay=decay)
        found = config.decaying(parameters, list(tuned.head.parameters()))
        assert found == {name for name, weight in parameters.items() if expected(name, weight)}
        assert found and (decay == "all") == (found == set(parameters))

    def test_make_optimizer_of_sgd_has_momentum(self):
        (group,) = TrainingConfig().make_optimizer({"weight": nn.Parameter(torch.ones(1))}).param_groups
        assert group["momentum"] == 0.9 and not group["nesterov"]

    def test_train_for_one_step_equals_plain_sgd(self):
        tuned, plain = model(), model()
        config = CONFIG.replace(epochs=1, batch_size=24)
        train(tuned, examples(), config)
        data = examples()
        loss = nn.functional.cross_entropy(
            plain(plain.backbone.preprocessing.normalize(torch.from_numpy(data.pixels))), torch.from_numpy(data.labels)
        )
        loss.backward()
        lr = config.lr_at(0, 1, 1)
        with torch.no_grad():
            for weight in plain.trainable_parameters():
                decay = config.training.weight_decay if weight.dim() > 1 else 0.0
                weight -= lr * (weight.grad + decay * weight)
        assert max_relative_difference(tuned, plain) < 1e-5


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"train_on": "train+val"}, "train_on is 'train\\+val'; did you mean 'trainval'"),
        ({"save_dtype": "float16"}, "save_dtype is 'float16'"),
        ({"workers": "2"}, "workers is '2'; it must be a whole number"),
        ({"loading": "chache"}, "loading is 'chache'; did you mean 'cache'"),
        ({"label_kind": "single"}, "label_kind is 'single'"),
        ({"test": "yes"}, "test is 'yes'; it must be True or False"),
    ],
)
def test_job_with_an_option_of_another_type_is_refused(option, message):
    with pytest.raises(SpecError, match=message):
        make_job("digits", epochs=1, **option)


def test_job_keeps_paths_that_are_given_as_texts():
    job = make_job("digits", epochs=1, cache="folder", weights="a.safetensors")
    assert (job.options.cache, job.weights) == (Path("folder"), Path("a.safetensors"))


def test_job_with_another_optimizer_needs_its_rate():
    with pytest.raises(SpecError, match="optimizer is sgd, and the default learning rate of vpt is for adamw; give"):
        make_job("digits", method="vpt", epochs=1, optimizer="sgd")
    assert (
        make_job("digits", method="vpt", epochs=1, optimizer="sgd", learning_rate=1.0).config.training.peak_lr == 0.25
    )
    assert make_job("digits", method="linear", epochs=1, optimizer="sgd").config.training.optimizer == "sgd"


def test_config_for_each_method_has_a_learning_rate():
    for kind in METHODS.values():
        assert ClassificationConfig.for_method(kind()).training.learning_rate > 0
