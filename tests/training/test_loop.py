"""Training: it learns, and it resumes where it was interrupted."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import timm
import torch
from torch import nn

from helpers.comparison import max_relative_difference
from helpers.two_processes import CONFIG, examples, model
from vpt.errors import SpecError, TrainingError, TunedFileError
from vpt.model.attach import attach
from vpt.tasks.classification import ClassificationConfig, train
from vpt.tasks.classification.training import make_objective
from vpt.training import Callback, EpochMetrics, Examples, fit
from vpt.training.batches import DeviceDataset, epoch_order, join_last
from vpt.training.loop import epoch_seed


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


def test_train_with_val_interval_validates_in_some_epochs_and_the_last():
    intervals, weights = {}, {}
    for interval in (1, 3):
        tuned = model()
        config = CONFIG.replace(epochs=4, val_interval=interval)
        intervals[interval] = train(tuned, examples(), config, validation=examples(1))
        weights[interval] = tuned.trainable_state_dict()
    assert [epoch.val_metric is None for epoch in intervals[3]] == [True, True, False, False]
    assert intervals[3][2].val_loss == intervals[1][2].val_loss
    assert all(torch.equal(weights[1][name], weights[3][name]) for name in weights[1])


def test_train_draws_other_crops_in_each_epoch(monkeypatch):
    seen, usual = [], DeviceDataset.inputs

    def inputs(self, indices, *options):
        found = usual(self, indices, *options)
        seen.append(found[list(indices).index(0)])
        return found

    monkeypatch.setattr(DeviceDataset, "inputs", inputs)
    config = CONFIG.replace(epochs=2, batch_size=24, augment="random_resized_crop")
    train(model(), examples(), config)
    again = config.replace(seed=1)
    train(model(), examples(), again)
    assert len(seen) == 6  # two steps of each training, and the loss after the last one
    assert len({tuple(pixels.flatten().tolist()) for pixels in seen}) == 6


def test_epoch_seed_differs_by_seed_epoch_and_rank():
    assert len({epoch_seed(*values) for values in product(range(3), repeat=3)}) == 27


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
        # The rate is scaled by the few images, not by the batch size.
        train(tuned, examples(), self.config.replace(probe_epochs=100), cache=tmp_path)
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


def test_train_whose_last_step_destroys_the_weights_raises_training_error(tmp_path):
    tuned, checkpoint = model(), tmp_path / "c.safetensors"

    class Destroyer(Callback):
        def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
            if (epoch, step) == (2, 3):
                with torch.no_grad():
                    tuned.head.weight.fill_(math.nan)

    validation, config = examples(seed=1), CONFIG.replace(epochs=2)
    with pytest.raises(TrainingError, match="the loss on val became nan in epoch 2, step 3 of 3"):
        train(tuned, examples(), config, validation=validation, checkpoint=checkpoint, callback=Destroyer())
    history = train(model(), examples(), config, validation=validation, checkpoint=checkpoint)
    assert len(history) == 2  # it goes on from the epoch before


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_train_without_val_whose_last_step_diverges_raises_training_error(ema, tmp_path):
    checkpoint, config = tmp_path / "c.safetensors", CONFIG.replace(epochs=1, batch_size=64, warmup_epochs=0, ema=ema)
    with pytest.raises(TrainingError, match=r"the loss on the last batch became (nan|inf) in epoch 1, step 1 of 1"):
        train(model(), examples(), config.replace(learning_rate=1e39), checkpoint=checkpoint)
    assert not checkpoint.exists()


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


class TestBatchOfOne:
    """Batch normalization of one value has no variance."""

    @pytest.mark.parametrize(
        ("images", "batch_size", "accumulation", "batches"),
        [(7, 3, 1, [3, 4]), (9, 8, 1, [9]), (3, 2, 1, [3]), (8, 5, 2, [5, 3]), (7, 6, 4, [7]), (6, 3, 1, [3, 3])],
    )
    def test_train_of_batch_norm_joins_a_last_batch_of_one(self, images, batch_size, accumulation, batches):
        network = timm.create_model("resnet10t", num_classes=0)
        tuned = attach(network, "full", 2)
        pixels = np.random.default_rng(0).integers(0, 256, (images, 3, 32, 32), dtype=np.uint8)
        config = CONFIG.replace(epochs=1, batch_size=batch_size, grad_accum_steps=accumulation)
        objective = make_objective(tuned, {"train": Examples(pixels, np.arange(images) % 2)}, config, None, Callback())
        preprocessing = replace(tuned.backbone.preprocessing, size=32)
        objective.dataset.preprocessing = preprocessing
        seen = []
        loss = objective.loss
        monitored = replace(objective)
        object.__setattr__(monitored, "loss", lambda indices, rng: seen.append(len(indices)) or loss(indices, rng))
        (epoch,) = fit(tuned, monitored, config)
        assert math.isfinite(epoch.train_loss)
        assert sum(seen[:-1]) == images and min(seen) > 1  # the last one is without a step
        tracked = {int(tensor) for name, tensor in tuned.named_buffers() if name.endswith("num_batches_tracked")}
        assert tracked == {len(seen) - 1}
        assert len(join_last(objective.batches(0), 2)) == len(batches)
        assert [len(batch) for batch in join_last(objective.batches(0), 2)] == batches

    def test_train_of_batch_norm_with_batch_size_one_is_refused(self):
        tuned = attach(timm.create_model("resnet10t", num_classes=0), "full", 2)
        examples_ = Examples(np.zeros((4, 3, 32, 32), np.uint8), np.arange(4) % 2)
        objective = make_objective(tuned, {"train": examples_}, CONFIG.replace(batch_size=1), None, Callback())
        objective.dataset.preprocessing = replace(tuned.backbone.preprocessing, size=32)
        with pytest.raises(SpecError, match="a batch of one image cannot train batch normalization"):
            fit(tuned, objective, CONFIG.replace(batch_size=1))
