"""Activation checkpointing is an option of every task: the same weights, computed twice, also after a resumption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.jobs import classification_job, segmentation_job
from vpt.backbones import activation_checkpointing
from vpt.training import Callback
from vpt.training.job import Job
from vpt.tuning import run_job


class Interrupt(Callback):
    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        if (epoch, step) == (2, 2):
            raise KeyboardInterrupt


@pytest.mark.parametrize("make", [classification_job, segmentation_job])
def test_job_with_activation_checkpointing_ends_with_equal_weights(
    make: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = activation_checkpointing.checkpoint

    def checkpoint(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return real(*args, **options)

    monkeypatch.setattr(activation_checkpointing, "checkpoint", checkpoint)
    plain = make(tmp_path, "a.safetensors", method="vpt(length=2)")
    job = make(tmp_path, "b.safetensors", method="vpt(length=2)", activation_checkpointing=True)
    run_job(plain, draw=False)
    assert not calls and job.to_dict()["activation_checkpointing"] is True
    with pytest.raises(KeyboardInterrupt):
        run_job(job, Interrupt(), draw=False)
    run_job(job, draw=False)
    assert len(calls) > 4
    expected = load_file(plain.out)
    for name, tensor in load_file(job.out).items():
        assert torch.allclose(tensor, expected[name], rtol=1e-5, atol=1e-6), name
