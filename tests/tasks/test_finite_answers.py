"""A model whose outputs are no numbers gives no answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vpt
from helpers.command_line import exit_code
from vpt.errors import ExitCode, TrainingError
from vpt.model.label_kinds import LabelKind, MultiLabel, Regression, SingleLabel
from vpt.serving.bank import Bank

PIXELS = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("head", "kind"),
    [(None, SingleLabel()), (None, MultiLabel()), (None, Regression(0.0, 1.0)), ("linear", SingleLabel())],
)
def test_prediction_that_is_no_number_is_refused_everywhere(
    head: str | None, kind: LabelKind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = vpt.attach(vpt.load_backbone(), "linear", 1 if kind.name == "regression" else 2, head=head)
    model.label_kind = kind
    with torch.no_grad():
        for weight in model.head.parameters():
            weight.fill_(3e38)  # finite, and any output overflows
    path = vpt.save(model, tmp_path / "a.safetensors")
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    words = "outputs of the model are NaN or infinite, so there is no prediction"
    with pytest.raises(TrainingError, match=words):
        vpt.predict(path, PIXELS)
    bank = Bank([path])
    with pytest.raises(TrainingError, match=words):
        bank.predict([bank.make_request("a", Image.fromarray(PIXELS))])
    assert exit_code("predict", path, tmp_path / "a.png") == ExitCode.TRAINING
    assert words in capsys.readouterr().err
