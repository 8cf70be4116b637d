"""The GPU benchmark runs dry on the CPU with a toy; the sweep of timm's models finds crashes and false refusals."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_script("gpu.py", *arguments)


def run_script(name: str, *arguments: str, folder: Path = BENCHMARKS) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the folder, which nothing else writes to."""
    return Path(
        shutil.copytree(
            BENCHMARKS, tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__", "data", "weights")
        )
    )


def times(folder: Path) -> dict[Path, int]:
    """When each file was changed."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_benchmark_without_gpu_exits_with_a_message() -> None:
    done = gpu()
    assert done.returncode == 3
    assert done.stderr.startswith("no GPU here: nothing was measured")


def test_gpu_benchmark_dry_run_prints_every_section(copy: Path) -> None:
    before = times(copy)
    done = run_script("gpu.py", "--dry-run", folder=copy)
    assert done.returncode == 0, done.stderr
    for part in ("Ceilings", "VPT-deep, 3 prompts", "What it costs", "The whole VTAB-1k protocol"):
        assert f"**{part}**" in done.stdout
    assert "left out" not in done.stdout and "Error" not in done.stdout
    assert "| vpt(length=3, dropout=0, depth=deep) |" in done.stdout
    assert times(copy) == before, "a dry run wrote something"


def test_families_dry_run_prints_row_of_model_and_writes_nothing(copy: Path) -> None:
    before = times(copy)
    done = run_script("families.py", "--models", "test_vit", "--dry-run", folder=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 models, 1 of them run" in done.stdout and "0 crashes, 0 false" in done.stdout
    assert "| vision_transformer: test | `test_vit` | " + " | ".join("✓" * 9) + " |" in done.stdout
    assert times(copy) == before, "a dry run wrote something"


def test_families_method_that_fails_is_a_crash(script, monkeypatch: pytest.MonkeyPatch) -> None:
    families, table = script("families"), script("families_table")

    def fail(*_: object) -> None:
        raise IndexError("no such block")

    monkeypatch.setattr(families, "attach", fail)
    cells = families.sweep_model("test_vit")["cells"]
    assert {cell["outcome"] for cell in cells.values()} == {"crash"} and set(cells) == set(table.METHODS)
    assert cells["lora"]["reason"].startswith("IndexError: no such block")


def test_families_merge_of_other_values_is_a_crash(script, monkeypatch: pytest.MonkeyPatch) -> None:
    families = script("families")
    monkeypatch.setattr(
        families.TunedModel, "merge", lambda model: {k: v + 0.1 for k, v in model.backbone.module.state_dict().items()}
    )
    merged = families.sweep_model("test_vit")["cells"]["lora"]["merge"]
    assert merged["outcome"] == "crash" and "Missing key(s)" in merged["reason"]


def test_families_faults_are_crashes_false_and_unexpected_refusals(script) -> None:
    def entry(outcome: str, false: str | None = None, reason: str = "") -> dict[str, Any]:
        cell = {"outcome": outcome, "reason": reason, "false": false}
        return {"family": "resnet: resnet", "device": "cpu", "cells": {"vpt": cell}}

    known = "vpt does not fit VGG: prompts are tokens of transformer blocks, and VGG has no blocks with attention"
    models = {
        "vgg11": entry("works"),
        "vgg13": entry("crash", reason="IndexError"),
        "vgg16": entry("refused", "blocks.0", known),
        "vgg19": entry("refused", reason="it is too old"),
        "vgg11_bn": entry("refused", reason=known),
    }
    faults = script("families_table").find_faults(models)
    assert [fault.partition(",")[0] for fault in faults] == ["crash: vgg13", "false: vgg16", "unexpected: vgg19"]


def test_families_visible_blocks_are_false_refusals_unless_listed(script) -> None:
    table = script("families_table")

    def faults_of(family: str, false: str | None) -> list[str]:
        reason = "and X has its attention in others: LayerScaleBlock; around the image"
        cell = {"outcome": "refused", "reason": reason, "false": false}
        faults = table.find_faults({"x": {"family": family, "device": "cpu", "cells": {"vpt": cell}}})
        return [fault.partition(",")[0] for fault in faults]

    visible = "blocks of linear layers are visible at blocks.0"
    assert faults_of("cait: cait", visible) == []
    assert faults_of("cait: cait", "no module is of class LayerScaleBlock") == ["false: x"]
    assert faults_of("vision_transformer: vit", visible) == ["false: x"]
    assert faults_of("vision_transformer: vit", None) == ["unexpected: x"]


@pytest.mark.parametrize(
    ("name", "reason", "contradiction"),
    [
        ("test_vit", "X has no linear layers in attention", "blocks.0.attn.qkv"),
        ("test_vit", "X has no MLP of linear layers", "blocks.0.mlp"),
        ("test_vit", "its layers have no biases", "patch_embed.proj.bias"),
        ("test_vit", "it has a head for which timm has no place", "head"),
        ("test_vit", "only square inputs are supported", "the input has 160x160 px"),
        ("test_vit", "the stars are wrong", "no rule judges this reason"),
        ("test_vit", "X has no blocks with attention", "blocks.0.attn"),
        ("test_vit", "X has its attention in others: Block", "blocks of linear layers are visible at blocks.0"),
        ("test_vit", "X has its attention in others: EvaBlock", "no module is of class EvaBlock"),
        ("test_vit", "reduction is 8, but blocks.0.mlp has only 4 channels", "blocks.0.mlp has 64 channels"),
        ("test_vit", "reduction is 80, but blocks.0.mlp has only 64 channels", None),
        (
            "cait_xxs24_224",
            "X has its attention in others: LayerScaleBlock",
            "blocks of linear layers are visible at blocks.0",
        ),
        ("botnet26t_256", "X has its attention in others: SelfAttnBlock", None),
        ("caformer_s18", "it has a head for which timm has no place", None),
        ("convformer_s18", "X has no linear layers", None),
        ("test_resnet", "X has no blocks with attention", None),
        ("test_resnet", "X has no linear layers", None),
        ("test_resnet", "X has no MLP of linear layers", None),
        ("test_resnet", "none of its layers has a bias, which takes the shift", "conv1.1"),
        ("mixer_s32_224", "X has no linear layers in attention", None),
        ("mixer_s32_224", "MlpMixer has no linear layers", "blocks.0.mlp_tokens.fc1"),
    ],
)
def test_judge_contradicts_refusals_that_are_not_true(
    script, name: str, reason: str, contradiction: str | None
) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=3)
    assert script("refusals").contradiction(model, reason) == contradiction


def test_judge_layers_without_biases_are_a_true_refusal(script) -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.LayerNorm(2, bias=False))
    assert script("refusals").contradiction(model, "its layers have no biases") is None


@pytest.mark.skipif(sys.platform == "win32", reason="the script forks")
def test_kills_judge_names_what_is_torn_lost_and_left(script: Callable[[str], Any], tmp_path: Path) -> None:
    judge = script("killed_files").judge
    whole, out = tmp_path / "whole", tmp_path / "out"
    for folder in (whole, out):
        folder.mkdir()
        for name in ("same.json", "torn.json", "other.csv", "lost.csv"):
            (folder / name).write_text('{"score": 1, "seconds": 2}')
    (out / "same.json").write_text('{"score": 1, "seconds": 3}')
    (out / "torn.json").write_text('{"score"')
    (out / "other.csv").write_text("2")
    (out / "lost.csv").unlink()
    (out / ".a.part").write_text("")
    found = judge(out, whole, code=8, exact=True)
    assert [name.partition(":")[0] for name in found["torn"]] == ["other.csv", "torn.json"]
    assert found["lost"] == ["exit code 8", "lost.csv"] and found["leftovers"] == [".a.part"]


@pytest.mark.skipif(sys.platform == "win32", reason="the script forks")
def test_kills_pages_differ_in_seconds_and_folders_alone(script: Callable[[str], Any], tmp_path: Path) -> None:
    content, page = script("killed_files").content, tmp_path / "page.html"
    pages = (
        "<p>7 parameters, in 1 s</p><p>/whole/a.csv</p></html>",
        "<p>7 parameters, in 2 s</p><p>/0/a.csv</p></html>",
        "<p>8 parameters, in 2 s</p><p>/0/a.csv</p></html>",
        "<p>7 parameters, in 1 s</p>",
    )
    found = []
    for text in pages:
        page.write_text(text)
        try:
            found.append(content(page, exact=True))
        except ValueError as error:
            found.append(str(error))
    assert found[0] == found[1] != found[2] and found[3] == "the page has no end"


@pytest.mark.skipif(sys.platform == "win32", reason="the script forks")
def test_kills_dry_run_of_saving_counts_no_fault() -> None:
    done = run_script("kills.py", "--only", "save", "--kills", "2", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "save: {'kills': 2, 'inside': 1, " in done.stdout
    assert "'torn': 0, 'lost': 0, 'leftovers': 0}" in done.stdout
