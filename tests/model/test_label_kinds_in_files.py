"""Kinds of labels in tuned files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vpt
from vpt.errors import SpecError
from vpt.model.label_kinds import LabelKind, MultiLabel, Regression, SingleLabel, parse_label_kind


@pytest.mark.parametrize("kind", [SingleLabel(), MultiLabel(), MultiLabel((0.25, 0.75)), Regression(3.5, 1.25)])
def test_save_and_load_keep_the_kind_of_labels(kind: LabelKind, tmp_path: Path) -> None:
    model = vpt.attach(vpt.load_backbone(), "linear", 2)
    model.label_kind = kind
    path = vpt.save(model, tmp_path / "a.safetensors")
    assert vpt.inspect(path).label_kind == kind == vpt.load(path).label_kind


def test_header_of_single_labels_says_nothing_of_them(tmp_path: Path) -> None:
    header = vpt.inspect(vpt.save(vpt.attach(vpt.load_backbone(), "linear", 2), tmp_path / "a.safetensors"))
    assert "label_kind" not in json.loads(header.to_json())
    with_kind = replace(header, label_kind=Regression(1.0, 2.0)).to_json()
    assert json.loads(with_kind)["label_kind"] == {"name": "regression", "mean": 1.0, "std": 2.0}


def test_parse_label_kind_refuses_an_unknown_one() -> None:
    with pytest.raises(SpecError, match="no kind of labels 'ranking'; known are single_label, multi_label, regression"):
        parse_label_kind({"name": "ranking"})


def test_activate_gives_probabilities_and_numbers() -> None:
    logits = torch.tensor([[0.0, 2.0]])
    torch.testing.assert_close(SingleLabel().activate(logits), logits.softmax(1))
    torch.testing.assert_close(MultiLabel().activate(logits), logits.sigmoid())
    assert MultiLabel((0.6, 0.6)).decide(torch.tensor([[0.5, 0.7]])).tolist() == [[False, True]]
    kind = Regression(10.0, 2.0)
    assert kind.activate(logits).tolist() == [[10.0, 14.0]]
    torch.testing.assert_close(kind.activate(kind.standardize(logits)), logits)
