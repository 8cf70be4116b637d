"""Kinds of labels in tuned files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

import vpt
from vpt.errors import SpecError, TunedFileError
from vpt.model.header import KEY, NO_CHECKSUM, seal
from vpt.model.label_kinds import LabelKind, MultiLabel, Regression, SingleLabel, parse_label_kind
from vpt.model.tuned_file import Header


@pytest.mark.parametrize(
    "kind", [SingleLabel(), SingleLabel(2.5), MultiLabel(), MultiLabel((0.25, 0.75)), Regression(3.5, 1.25)]
)
def test_save_and_load_keep_the_kind_of_labels(kind: LabelKind, tmp_path: Path) -> None:
    model = vpt.attach(vpt.load_backbone(), "linear", 2)
    model.label_kind = kind
    path = vpt.save(model, tmp_path / "a.safetensors")
    assert vpt.inspect(path).label_kind == kind == vpt.load(path).label_kind


def test_header_has_the_kind_of_labels(tmp_path: Path) -> None:
    header = vpt.inspect(vpt.save(vpt.attach(vpt.load_backbone(), "linear", 2), tmp_path / "a.safetensors"))
    assert json.loads(header.to_json())["label_kind"] == {"name": "single_label", "temperature": 1.0}
    with_kind = replace(header, label_kind=Regression(1.0, 2.0)).to_json()
    assert json.loads(with_kind)["label_kind"] == {"name": "regression", "mean": 1.0, "std": 2.0}


def test_parse_label_kind_refuses_an_unknown_one() -> None:
    with pytest.raises(SpecError, match="no kind of labels 'ranking'; known are single_label, multi_label, regression"):
        parse_label_kind({"name": "ranking"})


def test_activate_gives_probabilities_and_numbers() -> None:
    logits = torch.tensor([[0.0, 2.0]])
    torch.testing.assert_close(SingleLabel().activate(logits), logits.softmax(1))
    torch.testing.assert_close(SingleLabel(4.0).activate(logits), (logits / 4).softmax(1))
    torch.testing.assert_close(MultiLabel().activate(logits), logits.sigmoid())
    assert MultiLabel((0.6, 0.6)).decide(torch.tensor([[0.5, 0.7]])).tolist() == [[False, True]]
    for several in (MultiLabel((0.5, 0.75)), MultiLabel()):
        assert several.decide(torch.tensor([0.5, 0.75])).all(), "a probability at the threshold reaches it"
    kind = Regression(10.0, 2.0)
    assert kind.activate(logits).tolist() == [[10.0, 14.0]]
    torch.testing.assert_close(kind.activate(kind.standardize(logits)), logits.double())
    times = torch.tensor([1.7e9 + 1, 1.7e9 + 2], dtype=torch.float64)  # which 32 bits do not tell apart
    kind = Regression(1.7e9, 2.0)
    assert kind.standardize(times).tolist() == [0.5, 1.0] and kind.activate(kind.standardize(times)).equal(times)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_single_label_with_an_unusable_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(
        SpecError, match=r"temperature is .*(; it must be above 0 and finite|: Input should be a finite number)"
    ):
        parse_label_kind({"name": "single_label", "temperature": temperature})


@pytest.mark.parametrize("mean", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("std", [0.0, -1.0, 1.0, float("nan"), float("inf")])
def test_regression_with_an_unusable_scale_is_refused(mean: float, std: float) -> None:
    if mean == 0 and std == 1:
        assert Regression(mean, std) == parse_label_kind({"name": "regression", "mean": mean, "std": std})
        return
    with pytest.raises(SpecError, match=r"(mean|std) is .*; it must be "):
        Regression(mean, std)
    with pytest.raises(SpecError, match=r"(mean|std) is "):
        parse_label_kind({"name": "regression", "mean": mean, "std": std})


@pytest.mark.parametrize("std", [0.0, -2.0])
def test_forged_file_with_an_unusable_scale_is_refused(std: float, tmp_path: Path) -> None:
    model = vpt.attach(vpt.load_backbone(), "linear", 1)
    model.label_kind = Regression(1.0, 2.5)
    path = vpt.save(model, tmp_path / "a.safetensors")
    values = json.loads(vpt.inspect(path).to_json()) | {"checksum": NO_CHECKSUM}
    values["label_kind"]["std"] = std
    path.write_bytes(seal(save(load(path.read_bytes()), {KEY: json.dumps(values)})))
    with pytest.raises(TunedFileError, match=r"damaged header .*std is .* above 0 and finite"):
        vpt.load(path)


def test_header_with_a_temperature_of_another_type_is_damaged(tmp_path: Path) -> None:
    path = vpt.save(vpt.attach(vpt.load_backbone(), "linear", 2), tmp_path / "a.safetensors")
    values = json.loads(replace(vpt.inspect(path), label_kind=SingleLabel(2.0)).to_json())
    values["label_kind"]["temperature"] = "warm"
    with pytest.raises(TunedFileError, match="damaged header"):
        Header.from_json(json.dumps(values), path)
