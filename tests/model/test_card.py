"""The model card of a tuned file, and the scores that it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vpt
from helpers.families import backbone_of
from vpt.errors import SpecError
from vpt.model.card import model_card
from vpt.model.tuned_model import TunedModel


@pytest.fixture(scope="module")
def model() -> TunedModel:
    return vpt.attach(backbone_of("vit"), "linear", 2, classes=["cat", "dog"]).eval()


def rows_of(card: str) -> list[list[str]]:
    """Return metric, split and value of each row of the table of scores."""
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in card.splitlines() if line.startswith("| ")]
    assert rows[0] == ["metric", "split", "value"]
    return rows[1:]


def test_card_keeps_names_of_metrics_that_begin_with_no_split(model: TunedModel, tmp_path: Path) -> None:
    scores = {"accuracy": 0.9, "macro_f1": 0.8, "test_top1": 0.7, "val_macro_f1": 0.6, "out_of_fold_top1": 0.5}
    card = model_card(vpt.save(model, tmp_path / "a.safetensors", scores=scores))
    assert rows_of(card) == [
        ["accuracy", "", "90.00 %"],
        ["macro_f1", "", "80.00 %"],
        ["top1", "test", "70.00 %"],
        ["macro_f1", "val", "60.00 %"],
        ["top1", "out_of_fold", "50.00 %"],
    ]


def test_card_names_the_package_without_an_address(model: TunedModel, tmp_path: Path) -> None:
    card = model_card(vpt.save(model, tmp_path / "a.safetensors"))
    assert "`vpt` is the Python package visual-prompt-tuning." in card and "pypi.org" not in card


def test_save_takes_scores_of_numpy_and_torch(model: TunedModel, tmp_path: Path) -> None:
    scores = {
        "top1": torch.tensor(0.5, requires_grad=True), "map": np.float32(0.25), "count": np.int64(3),
        "each": np.array([0.5, np.nan], np.float32), "nested": {"both": [torch.tensor([1, 2])]}, "note": "by hand",
    }  # fmt: skip
    expected = {
        "top1": 0.5, "map": 0.25, "count": 3, "each": [0.5, None], "nested": {"both": [[1, 2]]}, "note": "by hand",
    }  # fmt: skip
    path = vpt.save(model, tmp_path / "a.safetensors", scores=scores, split_options={"seed": np.int64(1)})
    assert vpt.inspect(path).scores == expected and vpt.inspect(path).split_options == {"seed": 1}
    assert rows_of(model_card(path))[0] == ["top1", "", "50.00 %"]
    lora = vpt.attach(backbone_of("vit"), "lora(rank=1)", 2).eval()
    vpt.conversion.write_peft(lora, tmp_path / "lora", scores=scores)
    assert json.loads((tmp_path / "lora" / "vpt.json").read_text())["scores"] == expected


@pytest.mark.parametrize("value", [object(), {"a": [lambda: 0.5]}, torch.ones(2, device="meta"), "\ud800"])
def test_save_with_scores_that_json_has_no_form_for_is_refused(model: TunedModel, tmp_path: Path, value: Any) -> None:
    with pytest.raises(SpecError, match=r"scores or split_options cannot be written as JSON .* give numbers, texts"):
        vpt.save(model, tmp_path / "a.safetensors", scores={"top1": value})
    assert not (tmp_path / "a.safetensors").exists()
