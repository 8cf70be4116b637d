"""The loss on val: that of the option, without what suits training alone."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.two_processes import CONFIG, examples, model
from vpt.tasks.classification import train


@pytest.mark.parametrize("loss", ["ce", "focal"])
def test_loss_on_val_has_no_class_weights_and_no_label_smoothing(loss: str) -> None:
    options: dict[str, Any] = {"class_weights": "1,5,2", **({"label_smoothing": 0.3} if loss == "ce" else {})}
    config = CONFIG.replace(epochs=1, learning_rate=1e-30, loss=loss)  # the weights stay as they are
    (plain,) = train(model(), examples(), config, validation=examples(seed=1))
    (weighted,) = train(model(), examples(), config.replace(**options), validation=examples(seed=1))
    assert weighted.train_loss != pytest.approx(plain.train_loss)
    assert weighted.val_loss == pytest.approx(plain.val_loss)
