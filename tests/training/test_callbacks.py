"""Callbacks, Python's logging, and the penalty of a method."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vpt
from helpers.two_processes import CONFIG, examples, model
from vpt.tasks.classification import train
from vpt.training import Callback, CallbackList
from vpt.training.distributed import resolve_device

_EVENTS = [name for name in vars(Callback) if name.startswith("on_")]


class _Recorder(Callback):
    def __init__(self) -> None:
        self.events: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            self.events.append(name)
        return super().__getattribute__(name)


def test_callback_list_of_two_callbacks_passes_every_event_in_order() -> None:
    received: list[tuple[int, str, tuple[object, ...]]] = []

    def recorder(number: int) -> Callback:
        callback = Callback()
        for name in _EVENTS:
            setattr(callback, name, lambda *args, name=name: received.append((number, name, args)))
        return callback

    combined = CallbackList([recorder(1), recorder(2)])
    assert len(_EVENTS) == 10
    for name in _EVENTS:
        args = tuple(object() for _ in inspect.signature(getattr(Callback(), name)).parameters)
        getattr(combined, name)(*args)
        assert received[-2:] == [(1, name, args), (2, name, args)]


def test_train_with_callback_sends_start_steps_and_epochs_in_order() -> None:
    recorder = _Recorder()
    train(model(), examples(), CONFIG.replace(epochs=2), callback=recorder)
    steps = ["on_step"] * 3 + ["on_epoch"]
    assert [name for name in recorder.events if name != "on_note"] == ["on_train_start", *steps, *steps]


@pytest.mark.parametrize("grad_accum_steps", [1, 3])
def test_penalty_with_grad_accumulation_is_added_once_per_batch(
    grad_accum_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, penalized = model("linear"), model("linear")
    config = CONFIG.replace(
        epochs=1, batch_size=24, warmup_epochs=0, weight_decay=0.0, grad_accum_steps=grad_accum_steps
    )
    start = [weight.detach().clone() for weight in plain.head.parameters()]

    def penalty(self: vpt.TunedModel) -> Tensor | None:
        return sum((0.5 * weight.square().sum() for weight in self.head.parameters()), torch.zeros(()))

    (without,) = train(plain, examples(), config)
    monkeypatch.setattr(vpt.TunedModel, "penalty", penalty, raising=False)
    (within,) = train(penalized, examples(), config)
    lr = config.lr_at(0, 1, 1)
    for own, other, before in zip(penalized.head.parameters(), plain.head.parameters(), start, strict=True):
        assert torch.allclose(own, other - lr * before, atol=1e-5)  # the gradient of the penalty is the weight
    expected = 0.5 * sum(float(weight.square().sum()) for weight in start)
    assert within.train_loss - without.train_loss == pytest.approx(expected, rel=1e-3)


def test_tune_without_progress_prints_nothing_and_logs_notes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"method": "linear", "epochs": 1, "train_fraction": 0.1}
    result = vpt.tune("digits", tmp_path / "digits.safetensors", **options)
    assert capsys.readouterr() == ("", "")
    assert result.metric == "test_top1" and 0 <= result.score == result.metrics["test_top1"] <= 1
    assert Path(result.file).is_file() and (Path(result.run_dir) / "run.toml").is_file()
    with caplog.at_level(logging.INFO, logger="vpt"):
        again = vpt.tune("digits", tmp_path / "digits.safetensors", **options)
    assert again == result
    assert any("was made by this very job before" in record.message for record in caplog.records)


def test_resolve_device_of_absent_or_unknown_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(
        vpt.SpecError, match="device is 'cuda', which torch does not find on this machine; use one of: cpu"
    ):
        resolve_device("cuda")
    with pytest.raises(vpt.SpecError, match="device is 'cdua'; did you mean 'cuda'"):
        resolve_device("cdua")
