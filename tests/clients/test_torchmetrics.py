"""The calibration error against that of torchmetrics."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from vpt.training.evaluation import score_logits


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_calibration_error_equals_that_of_torchmetrics(scale: float) -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(6, (500,), generator=rng)
    logits = scale * (torch.randn(500, 6, generator=rng) + torch.eye(6)[labels])
    expected = MulticlassCalibrationError(6, n_bins=15, norm="l1")(logits.softmax(1), labels)
    assert score_logits(logits, labels).calibration_error == pytest.approx(float(expected), abs=1e-6)
