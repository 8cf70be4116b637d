"""Training: what a configuration means, that it learns, and that it goes on where it was cut off."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.comparison import max_relative_difference
from helpers.families import images
from helpers.two_processes import CONFIG, examples, model
from vpt import METHODS, VPT, Full, Linear
from vpt.errors import SpecError, TrainingError, TunedFileError
from vpt.tasks.classification import ClassificationConfig, train
from vpt.training import Callback, EpochMetrics, TrainingConfig
from vpt.training.batches import DeviceDataset, epoch_order

TESTS = Path(__file__).parents[1]


def without_time(history: list[EpochMetrics]) -> list[EpochMetrics]:
    return [replace(epoch, seconds=0.0) for epoch in history]


@pytest.mark.parametrize("method", ["vpt(length=3)", "vpt(length=3, depth=shallow)", "linear", "full"])
def test_train_of_each_method_learns_a_separable_problem(method):
    tuned = model(method)
    config = ClassificationConfig.for_method(
        tuned.method, epochs=6, batch_size=8, learning_rate=0.1 if method == "full" else 2.0
    )
    history = train(tuned, examples(), config, validation=examples(seed=1))
    assert len(history) == 6 and [epoch.epoch for epoch in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert history[-1].val_metric is not None and history[-1].val_metric > 0.9
    assert not tuned.training


def test_train_without_validation_reports_no_validation_metrics():
    (epoch,) = train(model(), examples(), CONFIG.replace(epochs=1))
    assert epoch.val_loss is None and epoch.val_metric is None
    (epoch,) = train(model(), examples(), CONFIG.replace(epochs=1), validation=examples(0))
    assert epoch.val_loss is None


class TestProbe:
    """The head may begin where a linear probe of the frozen backbone ends."""

    config = CONFIG.replace(epochs=1, learning_rate=1e-9, probe_epochs=20)

    def test_train_with_probe_epochs_initializes_the_head_from_the_probe(self):
        probe, tuned = model("linear"), model("vpt(length=3)")
        probe.head.load_state_dict(tuned.head.state_dict())
        train(probe, examples(), self.config.probe_config())
        train(tuned, examples(), self.config)
        for own, wanted in zip(tuned.head.parameters(), probe.head.parameters(), strict=True):
            assert torch.allclose(own, wanted, atol=1e-5)
        assert float(probe.head.weight.detach().norm()) > 0.2

    @pytest.mark.parametrize("output", ["image_mean", "prompt_max"])
    def test_train_with_probe_epochs_and_output_probes_that_output(self, output, tmp_path):
        tuned, start = (model(f"vpt(length=3, dropout=0, output={output})") for _ in range(2))
        start.load_state_dict(tuned.state_dict())
        train(tuned, examples(), self.config, cache=tmp_path)
        dataset = DeviceDataset(examples(), start.backbone.preprocessing, torch.device("cpu"))
        with torch.no_grad():
            read = start.features(dataset.inputs(np.arange(len(dataset)), "none", np.random.default_rng(0)))
            losses = [
                float(nn.functional.cross_entropy(head(read), dataset.labels)) for head in (start.head, tuned.head)
            ]
        assert losses[1] < 0.5 * losses[0]

    def test_train_resumed_with_probe_epochs_skips_the_probe(self, tmp_path):
        longer = self.config.replace(epochs=2, learning_rate=0.5)
        unbroken, cut = model("vpt(length=3)"), model("vpt(length=3)")
        train(unbroken, examples(), longer)

        class Stop(Callback):
            def on_epoch(self, record):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(cut, examples(), longer, checkpoint=tmp_path / "c.safetensors", callback=Stop())
        train(cut, examples(), longer, checkpoint=tmp_path / "c.safetensors")
        for own, wanted in zip(cut.trainable_parameters(), unbroken.trainable_parameters(), strict=True):
            assert torch.equal(own, wanted)

    def test_train_with_head_lr_scale_scales_the_rate_of_the_head(self):
        config = CONFIG.replace(epochs=1, probe_epochs=5, head_lr_scale=0.0, learning_rate=0.5)
        still, probe = model("vpt(length=3)"), model("vpt(length=3)")
        start = [weight.detach().clone() for weight in still.added_modules.parameters()]
        train(still, examples(), config)
        train(probe, examples(), config.replace(learning_rate=1e-12))
        for own, wanted in zip(still.head.parameters(), probe.head.parameters(), strict=True):
            assert torch.equal(own, wanted)
        assert not any(
            torch.equal(own, before) for own, before in zip(still.added_modules.parameters(), start, strict=True)
        )

    def test_train_with_probe_epochs_and_mlp_head_is_refused(self):
        with pytest.raises(SpecError, match="probe_epochs trains a linear head, but mlp has another"):
            train(model("mlp"), examples(), self.config)


class TestConfig:
    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ({"optimizer": "sdg"}, "optimizer is 'sdg'; did you mean 'sgd'"),
            ({"augment": "flipp"}, "augment is 'flipp'; did you mean 'flip'"),
            ({"precision": "fp16"}, "precision is 'fp16'"),
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
        weight = nn.Parameter(torch.ones(3))
        optimizer = TrainingConfig(optimizer=name, weight_decay=decay).make_optimizer([weight])
        assert type(optimizer) is kind
        assert [group["weight_decay"] for group in optimizer.param_groups] == [decay]
        weight.grad = torch.zeros(3)
        optimizer.param_groups[0]["lr"] = 0.1
        optimizer.step()
        assert torch.allclose(weight, torch.full((3,), 1 - 0.1 * decay))

    def test_make_optimizer_of_sgd_has_momentum(self):
        (group,) = TrainingConfig().make_optimizer([nn.Parameter(torch.ones(1))]).param_groups
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
                weight -= lr * (weight.grad + config.training.weight_decay * weight)
        assert max_relative_difference(tuned, plain) < 1e-5


@pytest.mark.parametrize("grad_accum_steps", [2, 3, 8])
def test_train_with_grad_accumulation_equals_one_batch(grad_accum_steps):
    whole, parts = model(), model()
    first = train(whole, examples(), CONFIG)
    second = train(parts, examples(), CONFIG.replace(grad_accum_steps=grad_accum_steps))
    assert max_relative_difference(parts, whole) < 1e-6
    assert [e.train_loss for e in second] == pytest.approx([e.train_loss for e in first], rel=1e-6)


def test_train_in_bf16_lowers_the_loss():
    tuned = model()
    history = train(tuned, examples(), CONFIG.replace(precision="bf16", epochs=4))
    assert history[-1].train_loss < history[0].train_loss
    assert {tensor.dtype for tensor in tuned.trainable_state_dict().values()} == {torch.float32}


def test_train_that_diverges_names_step_and_advice():
    tuned = model()
    with torch.no_grad():
        tuned.head.weight[0, 0] = math.nan
    with pytest.raises(TrainingError) as caught:
        train(tuned, examples(), CONFIG)
    message = str(caught.value)
    assert "loss became nan in epoch 1, step 1 of 3" in message
    assert f"at a learning rate of {CONFIG.lr_at(0, 9, 3):.3g}" in message
    assert "try learning_rate 0.1," in message


def test_train_with_huge_learning_rate_raises_training_error():
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf)"):
        train(model("full"), examples(), CONFIG.replace(learning_rate=1e12, epochs=5))


@pytest.mark.parametrize("n", [1, 3, 9])
def test_train_of_few_images_gives_a_valid_metric(n):
    (epoch,) = train(model(), examples(n), CONFIG.replace(epochs=1))
    assert 0 <= epoch.train_metric <= 1


def test_epoch_order_with_same_seed_and_epoch_is_equal():
    first = epoch_order(24, seed=0, epoch=0)
    assert sorted(first) == list(range(24))
    assert np.array_equal(epoch_order(24, seed=0, epoch=0), first)
    assert not np.array_equal(epoch_order(24, seed=1, epoch=0), first)
    assert not np.array_equal(epoch_order(24, seed=0, epoch=1), first)


class Interrupt(Callback):
    """Ctrl-C in the middle of the third epoch."""

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        if (epoch, step) == (3, 2):
            raise KeyboardInterrupt


class TestResume:
    @pytest.mark.parametrize(
        ("method", "optimizer"),
        [("vpt(length=3, dropout=0.3)", "sgd"), ("vpt(length=3)", "adamw"), ("linear", "sgd"), ("full", "adamw")],
    )
    def test_train_resumed_after_interrupt_is_bit_identical(self, tmp_path, method, optimizer):
        config = CONFIG.replace(epochs=4, optimizer=optimizer, augment="flip" if method == "linear" else "none")
        unbroken, broken, again = model(method), model(method), model(method, seed=9)
        whole = train(unbroken, examples(), config, validation=examples(seed=1))
        checkpoint = tmp_path / "run" / "checkpoint.safetensors"
        with pytest.raises(KeyboardInterrupt):
            train(broken, examples(), config, validation=examples(seed=1), checkpoint=checkpoint, callback=Interrupt())
        torch.rand(7)  # whatever else the new process has drawn
        resumed = train(again, examples(), config, validation=examples(seed=1), checkpoint=checkpoint)
        assert without_time(resumed) == without_time(whole)
        for name, tensor in unbroken.trainable_state_dict().items():
            assert torch.equal(again.trainable_state_dict()[name], tensor), name

    def test_train_of_finished_checkpoint_returns_its_history(self, tmp_path):
        checkpoint = tmp_path / "c.safetensors"
        first = train(model(), examples(), CONFIG, checkpoint=checkpoint)
        again = model(seed=9)
        assert train(again, examples(), CONFIG, checkpoint=checkpoint) == first

    @pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.99])
    def test_train_from_damaged_checkpoint_is_refused(self, tmp_path, fraction):
        checkpoint = tmp_path / "c.safetensors"
        train(model(), examples(), CONFIG.replace(epochs=1), checkpoint=checkpoint)
        content = checkpoint.read_bytes()
        checkpoint.write_bytes(content[: int(len(content) * fraction)])
        with pytest.raises(TunedFileError, match=r"checkpoint .* is damaged .* delete it to begin anew"):
            train(model(), examples(), CONFIG, checkpoint=checkpoint)

    def test_train_from_checkpoint_of_another_method_is_refused(self, tmp_path):
        checkpoint = tmp_path / "c.safetensors"
        train(model("linear"), examples(), CONFIG.replace(epochs=1), checkpoint=checkpoint)
        with pytest.raises(TunedFileError, match=r"of another run .*do not fit vpt\(length=3"):
            train(model(), examples(), CONFIG, checkpoint=checkpoint)

    def test_train_from_checkpoint_of_another_config_is_refused(self, tmp_path):
        checkpoint = tmp_path / "c.safetensors"
        train(model("linear"), examples(), CONFIG.replace(epochs=1), checkpoint=checkpoint)
        with pytest.raises(TunedFileError, match="written with another configuration"):
            train(model("linear"), examples(), CONFIG.replace(epochs=2), checkpoint=checkpoint)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_train_in_two_processes_equals_one_process(tmp_path):
    port = str(free_port())
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "helpers.two_processes", tmp_path / f"{rank}.safetensors"],
            cwd=TESTS,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    alone, together = model(), model()
    train(alone, examples(), CONFIG)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    together.load_trainable_state_dict(first)
    assert max_relative_difference(together, alone) < 1e-5


def test_tuned_model_in_ddp_equals_plain_training(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=(tmp_path / "rendezvous").as_uri(), rank=0, world_size=1)
    try:
        tuned, plain = model(), model()
        wrapped = nn.parallel.DistributedDataParallel(tuned)
        labels = torch.tensor([0, 1, 2, 0])
        for network, mine in ((wrapped, tuned), (plain, plain)):
            optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
            network.train()
            for _ in range(3):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images()), labels).backward()
                optimizer.step()
            assert len(mine.trainable_parameters()) == 5
        assert max_relative_difference(tuned, plain) < 1e-6
    finally:
        torch.distributed.destroy_process_group()


def test_config_for_each_method_has_a_learning_rate():
    for kind in METHODS.values():
        assert ClassificationConfig.for_method(kind()).training.learning_rate > 0
