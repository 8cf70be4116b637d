"""`vpt list`, which reads names and facts without importing what it lists."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
import timm

from helpers.command_line import exit_code, vpt
from vpt import METHODS
from vpt.analysis.summary import summarize
from vpt.backbones import DEFAULT, list_backbones, load_backbone
from vpt.cli.backbone_list import read_backbones
from vpt.cli.method_sources import read_methods
from vpt.core.spec import format_spec
from vpt.errors import ExitCode


def answer(capsys: pytest.CaptureFixture[str], *args: object) -> Any:
    vpt("list", *args, "--json")
    return json.loads(capsys.readouterr().out)


def test_list_with_pattern_prints_matching_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "methods").keys() == METHODS.keys()
    assert {"digits", "numerals", "count", "orientation", "cifar100", "cub"} <= answer(capsys, "tasks").keys()
    assert "vit_base_patch16_dinov3.lvd1689m" in answer(capsys, "backbones", "vit_base*dinov3*")
    assert answer(capsys, "methods", "vp*").keys() == {"vpt"}
    assert answer(capsys, "tasks", "*count").keys() == {"count", "clevr_count"}
    for what in ("methods", "tasks", "backbones"):
        assert exit_code("list", what, "xyzzy") == ExitCode.USAGE
        assert f"no name of {what} matches 'xyzzy'" in capsys.readouterr().err


def test_list_methods_describes_the_registered_classes(capsys: pytest.CaptureFixture[str]) -> None:
    described, rows = read_methods(), answer(capsys, "methods")
    assert list(described) == list(METHODS)
    for name, kind in METHODS.items():
        ours = [(field.name, field.default, field.metadata.get("later")) for field in fields(kind)]
        assert [(field.name, field.default, field.metadata.get("later")) for field in fields(described[name])] == ours
        assert rows[name]["spec"] == format_spec(kind(), name, full=True, later=True)
        assert all(f"{field.name}=" in rows[name]["spec"] for field in fields(kind))
        assert rows[name]["description"] == (kind.__doc__ or "").partition("\n")[0]
        assert rows[name]["options"] == {field.name: field.default for field in fields(kind)}


def test_list_backbones_holds_those_of_timm() -> None:
    """`python scripts/list_backbones.py` writes the list anew for another timm."""
    (listed, version), names = read_backbones(), list_backbones()
    if version == timm.__version__:
        assert list(listed) == names
    else:  # another version has some other models
        assert len(listed.keys() & set(names)) > 0.8 * len(names)
    assert all(row["parameters"] > 0 for row in listed.values())
    for name in listed.keys() & set(names) - {DEFAULT}:
        config = timm.get_pretrained_cfg(name)
        assert listed[name]["image_size"] in (config.input_size[-1], None)
        assert listed[name]["license"] == config.license or version != timm.__version__


@pytest.mark.parametrize("name", [DEFAULT, "deit_tiny_patch16_224.fb_in1k", "resnet18.a1_in1k"])
def test_list_backbones_counts_parameters_without_classifier(name: str) -> None:
    row, backbone = read_backbones()[0][name], load_backbone(name, device="meta")
    assert row["parameters"] == sum(parameter.numel() for parameter in backbone.module.parameters())
    assert row["image_size"] == backbone.preprocessing.size
    found = summarize(name, "linear", 2)
    assert row["parameters"] == found.total - found.head


def test_list_backbones_prints_each_on_a_line_that_begins_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    vpt("list", "backbones")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(read_backbones()[0])
    assert lines[0].split(None, 1)[1].split("  ")[-1] == "embedded, no download"
    vpt("list", "backbones", "resnet18")
    assert all(line.startswith("resnet18.") for line in capsys.readouterr().out.splitlines())
