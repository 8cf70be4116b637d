"""Activation checkpointing is an option of every task: the same weights, computed twice, also after a resumption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vpt.backbones import activation_checkpointing
from vpt.data.in_memory import dataset_from_memory
from vpt.training import Callback
from vpt.training.job import Job
from vpt.tuning import make_job, run_job

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 48, 48, 3), np.uint8)


def classification(folder: Path, name: str, **options: Any) -> Job:
    split = (PIXELS, [k % 2 for k in range(12)])
    data = dataset_from_memory({"train": split, "val": split, "test": split})
    return make_job(data, folder / name, method="vpt(length=2)", epochs=2, batch_size=4, **options)


def segmentation(folder: Path, name: str, **options: Any) -> Job:
    root = folder / "scenes"
    for kind, arrays in (("images", PIXELS), ("masks", PIXELS[..., 0] // 128)):
        (root / kind).mkdir(parents=True, exist_ok=True)
        for k, array in enumerate(arrays):
            Image.fromarray(array).save(root / kind / f"{k}.png")
    options |= {"method": "vpt(length=2)", "head": "linear", "image_size": 48, "iterations": 4, "eval_every": 2}
    return make_job(root, folder / name, batch_size=2, **options)


class Interrupt(Callback):
    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        if (epoch, step) == (2, 2):
            raise KeyboardInterrupt


@pytest.mark.parametrize("make", [classification, segmentation])
def test_job_with_activation_checkpointing_ends_with_equal_weights(
    make: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = activation_checkpointing.checkpoint

    def checkpoint(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return real(*args, **options)

    monkeypatch.setattr(activation_checkpointing, "checkpoint", checkpoint)
    plain, job = make(tmp_path, "a.safetensors"), make(tmp_path, "b.safetensors", activation_checkpointing=True)
    run_job(plain, draw=False)
    assert not calls and job.to_dict()["activation_checkpointing"] is True
    with pytest.raises(KeyboardInterrupt):
        run_job(job, Interrupt(), draw=False)
    run_job(job, draw=False)
    assert len(calls) > 4
    expected = load_file(plain.out)
    for name, tensor in load_file(job.out).items():
        assert torch.allclose(tensor, expected[name], rtol=1e-5, atol=1e-6), name
