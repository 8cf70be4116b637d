"""The trainer of the official code, KMnP/vpt: 50 steps of VPT-deep by SGD, from one start and in one order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracle_files import assert_close, attach_with_weights, read_oracle, tiny_vit
from oracle_names import official_vit

from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.classification.training import ClassificationObjective
from vpt.training import Callback, DeviceDataset, Examples, fit
from vpt.training.config import TrainingConfig

EPOCHS, STEPS, BATCH, WARMUP = 10, 5, 8, 3


class RatePerEpoch(ClassificationConfig):
    """The official schedule: the rate changes with the epoch, and the first epoch has a rate of 0.

    vpt's own changes with the step, and begins above 0.
    """

    def lr_at(self, step: int, num_steps: int, steps_per_epoch: int) -> float:
        epoch = step // steps_per_epoch
        if epoch < WARMUP:
            return self.training.peak_lr * epoch / WARMUP
        return self.training.peak_lr * 0.5 * (1 + math.cos(math.pi * (epoch - WARMUP) / (EPOCHS - WARMUP)))


class FixedOrder(ClassificationObjective):
    """The batches of the official run."""

    order: NDArray[np.int64]

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        return list(self.order[epoch * STEPS : (epoch + 1) * STEPS])


class Recorder(Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        self.losses.append(loss)
        self.rates.append(lr)


@pytest.mark.parametrize("name", ["official_trainer", "official_trainer_decay"])
def test_training_equals_official_trainer(name: str) -> None:
    oracle = read_oracle(name)
    model = attach_with_weights(tiny_vit(), "vpt(length=2, dropout=0)", official_vit(oracle.group("weights")))
    mean, std = (tuple(oracle.tensors[key].tolist()) for key in ("mean", "std"))
    preprocessing = replace(model.backbone.preprocessing, mean=mean, std=std)
    training = TrainingConfig(
        optimizer="sgd",
        learning_rate=0.1 * 256 / BATCH,
        weight_decay=oracle.source["weight_decay"],
        batch_size=BATCH,
        precision="fp32",
    )
    config = RatePerEpoch(training, epochs=EPOCHS, warmup_epochs=WARMUP)
    examples = Examples(oracle.tensors["pixels"].numpy(), oracle.tensors["labels"].numpy())
    dataset = DeviceDataset(examples, preprocessing, torch.device("cpu"))
    objective = FixedOrder(model, model, dataset, None, config, False)
    object.__setattr__(objective, "order", oracle.tensors["order"].numpy())  # the dataclass is frozen
    recorder = Recorder()
    fit(model, objective, config, callback=recorder)
    assert recorder.rates == pytest.approx(oracle.tensors["rates"].tolist(), rel=1e-12)
    assert_close("losses", torch.tensor(recorder.losses, dtype=torch.float64), oracle.tensors["losses"])
    end = {key.removeprefix("backbone."): weight for key, weight in model.trainable_state_dict().items()}
    for key, expected in official_vit(oracle.group("end")).items():
        assert_close(key, end[key], expected)
