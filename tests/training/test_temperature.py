"""Temperature scaling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

from vpt.training.evaluation import score_logits
from vpt.training.temperature import fit_temperature


def draw(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=400)
    return torch.from_numpy(scale * (rng.normal(size=(400, 4)) + np.eye(4)[labels])), torch.from_numpy(labels)


@pytest.mark.parametrize("scale", [1e-3, 0.2, 1.0, 8.0, 1e3])
def test_temperature_has_the_lowest_loss_of_all(scale: float) -> None:
    logits, labels = draw(scale)
    found = fit_temperature(logits, labels)
    reference = minimize_scalar(lambda t: float(cross_entropy(logits / np.exp(t), labels)), bounds=(-9, 9))
    assert found == pytest.approx(np.exp(reference.x), rel=1e-3)
    unscaled = fit_temperature(*draw(1.0))
    assert unscaled is not None and found == pytest.approx(scale * unscaled, rel=1e-4)


def test_temperature_of_logits_with_one_slight_mistake_is_finite() -> None:
    logits, labels = 5 * torch.eye(3).repeat(20, 1), torch.arange(60) % 3
    logits[0] = torch.tensor([0.0, 0.1, 0.0])
    found = fit_temperature(logits, labels)
    reference = minimize_scalar(lambda t: float(cross_entropy(logits.double() / np.exp(t), labels)), bounds=(-9, 9))
    assert found == pytest.approx(np.exp(reference.x), rel=1e-3)


@pytest.mark.parametrize(
    "logits",
    [
        [[2.0, 1.0], [0.0, 3.0]],  # every prediction is right
        [[1.0, 1.0], [0.0, 3.0]],  # or ties with another
        [[0.0, 1.0], [2.0, 1.5]],  # worse than chance
        [[1.0, 1.0], [1.0, 1.0]],
    ],
)
def test_temperature_without_a_lowest_loss_is_none(logits: list[list[float]]) -> None:
    assert fit_temperature(torch.tensor(logits), torch.tensor([0, 1])) is None


def test_temperature_of_exaggerated_logits_lowers_the_calibration_error() -> None:
    logits, labels = draw(8.0)
    temperature = fit_temperature(logits, labels)
    assert temperature is not None
    before, after = (score_logits(each, labels) for each in (logits, logits / temperature))
    assert before.calibration_error is not None and after.calibration_error is not None
    assert after.calibration_error < before.calibration_error / 3
    assert (after.confusion == before.confusion).all()
