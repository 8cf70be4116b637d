"""The learning rate of a step with fewer images than the batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vpt
from vpt.errors import SpecError
from vpt.training import Callback
from vpt.training.config import TrainingConfig


class _Rates(Callback):
    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        self.rates.append(lr)


def rates(tmp_path: Any, batch_size: int, method: str = "linear") -> list[float]:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 48, 48, 3), dtype=np.uint8)
    callback, out = _Rates(), tmp_path / f"{batch_size}.safetensors"
    options: dict[str, Any] = {"epochs": 2, "warmup_epochs": 0, "val_fraction": 0, "progress": False}
    data = {"train": (pixels, np.arange(16) % 2), "test": (pixels[:2], [0, 1])}
    vpt.tune(data, out, method=method, batch_size=batch_size, learning_rate=1.0, callback=callback, **options)
    return callback.rates


def test_batch_size_above_the_number_of_images_does_not_scale_the_rate(tmp_path: Any) -> None:
    assert rates(tmp_path, 16) == rates(tmp_path, 4096) != []
    assert max(rates(tmp_path, 8)) == pytest.approx(8 / 256)


def test_lr_factor_is_the_share_of_a_batch() -> None:
    training = TrainingConfig(batch_size=64)
    assert [training.lr_factor(images) for images in (16, 64, 65)] == [0.25, 1.0, 1.0]


def test_numbers_above_63_bits_are_refused() -> None:
    for name in ("seed", "batch_size", "patience"):
        with pytest.raises(SpecError, match=f"{name} is {2**70}; it must be at most {2**63 - 1}"):
            TrainingConfig(**{name: 2**70})
    assert TrainingConfig(seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(SpecError, match=r"layers is 100000000000; .* and at most 1000"):
        vpt.attach(vpt.load_backbone(), vpt.parse_method("mlp(layers=3)").__class__(layers=10**11), 2)
