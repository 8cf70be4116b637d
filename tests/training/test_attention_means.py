"""Means at the attention of each block."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.families import backbone_of
from helpers.no_float64 import NoFloat64
from vpt import attach
from vpt.training.attention_means import collect_attention_means
from vpt.training.batches import DeviceDataset, Examples


def test_collect_attention_means_on_a_device_without_float64_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    model, examples = attach(backbone_of("vit"), "vpt(length=3)", 3), Examples(pixels, np.arange(6) % 3)
    expected, inputs = collect_attention_means(model, examples), DeviceDataset.inputs
    monkeypatch.setattr(DeviceDataset, "inputs", lambda *args: inputs(*args).as_subclass(NoFloat64))
    for index, means in collect_attention_means(model, examples).items():
        for name in ("tokens", "keys", "outputs"):
            assert torch.equal(getattr(means, name), getattr(expected[index], name))
