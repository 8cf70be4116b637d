"""The epoch whose weights are kept and the end of training follow from val, never from test, and are resumed."""

from __future__ import annotations

import math

import pytest
import torch
from timm.utils import ModelEmaV3

from helpers.two_processes import CONFIG, examples, model
from vpt.errors import SpecError
from vpt.tasks.classification import train
from vpt.tasks.classification.training import ClassificationObjective
from vpt.training import Callback, EpochMetrics
from vpt.training.kept_weights import best_epoch
from vpt.tuning import make_job, run_job

VAL = [0.5, 0.75, math.nan, 0.75, 0.25, 1.0]  # the metric that each evaluation is given


class Epochs(Callback):
    """Records the weights of each epoch, or their average by timm, and notes; interrupts in an epoch."""

    def __init__(self, tuned, ema: float, stop_in: int = 0) -> None:
        self.tuned, self.stop_in, self.notes, self.weights, self.steps = tuned, stop_in, [], [], 0
        self.average = ModelEmaV3(tuned, decay=ema, use_warmup=True) if ema else None

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        self.steps += 1
        if self.average is not None:
            self.average.update(self.tuned, step=self.steps)
        if (epoch, step) == (self.stop_in, 2):
            raise KeyboardInterrupt

    def on_epoch(self, record: EpochMetrics) -> None:
        kept = self.tuned if self.average is None else self.average.module
        self.weights.append({name: tensor.clone() for name, tensor in kept.trainable_state_dict().items()})


@pytest.fixture(autouse=True)
def scripted_val(monkeypatch):
    """Let the evaluation after each epoch give the next value of `VAL`."""
    epochs = []
    real = ClassificationObjective.batches

    def batches(self, epoch):
        epochs.append(epoch)
        return real(self, epoch)

    monkeypatch.setattr(ClassificationObjective, "batches", batches)
    monkeypatch.setattr(ClassificationObjective, "validate", lambda self: (1.0, {"accuracy": VAL[epochs[-1]]}))


def run(tmp_path=None, stop_in: int = 0, **options):
    tuned = model("vpt(length=3, dropout=0.3)")
    callback = Epochs(tuned, options.get("ema", 0.0), stop_in)
    checkpoint = None if tmp_path is None else tmp_path / "c.safetensors"
    config = CONFIG.replace(**{"epochs": 6, **options})
    history = train(tuned, examples(), config, validation=examples(seed=1), checkpoint=checkpoint, callback=callback)
    return tuned, history, callback


@pytest.mark.parametrize(("patience", "epochs"), [(0, 6), (1, 3), (2, 4), (3, 5), (4, 6)])
def test_train_with_patience_stops_after_as_many_evaluations_without_a_better_one(patience, epochs):
    _, history, callback = run(patience=patience)
    assert len(history) == epochs
    assert len(callback.notes) == (epochs < 6)
    for note in callback.notes:
        evaluations = f"{patience} evaluations on val were no better than that of epoch 2"
        assert note == f"training stopped after epoch {epochs} of 6: {evaluations}"


def test_train_with_patience_and_val_interval_counts_evaluations():
    _, history, _ = run(patience=1, val_interval=2, epochs=6)
    assert [record.val_metric for record in history] == [None, 0.75, None, 0.75]


@pytest.mark.parametrize(("epochs", "best"), [(1, 1), (5, 2), (6, 6)])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_train_that_keeps_the_best_ends_with_its_weights(epochs, best, ema):
    tuned, history, callback = run(keep="best", epochs=epochs, ema=ema)
    assert callback.notes == [f"the weights of epoch {best} of {epochs} are kept, the best on val"]
    for name, tensor in tuned.trainable_state_dict().items():
        assert torch.equal(tensor, callback.weights[best - 1][name]), name
    assert len(history) == epochs


@pytest.mark.parametrize("stop_in", [2, 4])
@pytest.mark.parametrize("options", [{"patience": 3}, {"keep": "best", "epochs": 5}, {"keep": "best", "ema": 0.9}])
def test_train_resumed_with_kept_weights_is_bit_identical(stop_in, options, tmp_path):
    unbroken, history, _ = run(**options)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop_in, **options)
    for _ in range(2):  # the second has nothing left to train
        again, resumed, _ = run(tmp_path, **options)
        assert [record.train_loss for record in resumed] == [record.train_loss for record in history]
        for name, tensor in unbroken.trainable_state_dict().items():
            assert torch.equal(again.trainable_state_dict()[name], tensor), name


@pytest.mark.parametrize("option", [{"patience": 2}, {"keep": "best"}])
def test_train_without_val_refuses_to_keep_the_best(option, tmp_path):
    with pytest.raises(SpecError, match="there are no validation images to decide on, as test images never may"):
        train(model(), examples(), CONFIG.replace(**option))
    job = make_job("digits", tmp_path / "x.safetensors", method="linear", epochs=1, train_on="trainval", **option)
    with pytest.raises(SpecError, match="there are no validation images to decide on"):
        run_job(job, draw=False)


def test_best_epoch_is_the_first_of_equals_and_never_one_without_a_metric():
    def records(*metrics):
        return [EpochMetrics(k + 1, 1.0, 0.5, None, metric, 0.1, 1.0) for k, metric in enumerate(metrics)]

    assert best_epoch([]) == 0
    assert best_epoch(records(None, 0.25, 0.5, None, 0.5, math.nan)) == 3
    assert best_epoch(records(math.nan, 0.0)) == 2
    assert best_epoch(records(None, math.nan, None, math.nan)) == 2
    assert best_epoch(records(None, None)) == 0


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_train_whose_metric_is_undefined_in_every_epoch_keeps_the_last_weights(ema, monkeypatch):
    monkeypatch.setitem(globals(), "VAL", [math.nan] * 4)
    tuned, _, callback = run(keep="best", epochs=4, val_interval=2, ema=ema)
    assert callback.notes == ["the metric on val is undefined in every epoch, so none is the best: the last is kept"]
    for name, tensor in tuned.trainable_state_dict().items():
        assert torch.equal(tensor, callback.weights[-1][name]), name


def test_train_whose_metric_is_undefined_at_first_keeps_the_best_later_epoch(monkeypatch):
    monkeypatch.setitem(globals(), "VAL", [0.0, math.nan, 0.0, 0.5])
    _, _, callback = run(keep="best", epochs=4, val_interval=2)
    assert callback.notes == ["the weights of epoch 4 of 4 are kept, the best on val"]


def test_config_with_negative_patience_is_refused():
    with pytest.raises(SpecError, match="patience is -1; it must be at least 0"):
        CONFIG.replace(patience=-1)
    with pytest.raises(SpecError, match="keep is 'first'; known: best, last"):
        CONFIG.replace(keep="first")
