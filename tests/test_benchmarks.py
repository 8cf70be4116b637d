"""The GPU benchmark runs dry on the CPU with a toy; the sweep of timm's models finds crashes and false refusals."""

from __future__ import annotations

import importlib
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


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


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a script, as scripts import each other."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


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


def test_shortcuts_are_points_above_the_mean_of_the_last_epochs(script: Callable[[str], Any]) -> None:
    shortcuts = script("shortcuts")
    runs = [[50.0, 60.0, 58.0], [40.0, 52.0, 54.0]]
    gains = shortcuts.scoring_gains(runs)
    assert gains == {"best epoch": 1.0, "best seed": 2.0, "best epoch and seed": 4.0}, "of 56.0"
    cell = ("signdigits", "Full")
    plain = {cell: dict(enumerate(runs)), ("signdigits", "Full, untuned"): {0: [0.0, 61.0], 1: [0.0, 56.0]}}
    jpeg = {cell: {1: [0.0, 56.0], 2: [0.0, 99.0]}}  # seed 0 is not done, and 2 has nothing to compare with
    curves = {"plan": plain, "jpeg": jpeg, "inception": {}}
    rows = {row["shortcut"]: row for row in shortcuts.with_intervals(curves)}
    assert (rows["JPEG, quality 75"]["points"], rows["JPEG, quality 75"]["seeds"]) == (2, 1) and len(rows) == 5
    assert (rows["default rate"]["points"], rows["default rate"]["seeds"]) == (2.5, 2)
    half = 12.7062 * statistics.stdev([3, 2]) / 2**0.5  # Student's t with one degree of freedom
    assert rows["default rate"]["high"] == pytest.approx(2.5 + half, abs=1e-3)
    table = shortcuts.format_table(list(rows.values()), curves["plan"])
    assert "| none: top-1 in %, ± standard deviation | 56.0 ± 2.8 (2) |" in table
    assert "| JPEG, quality 75 | +2.0 (+2.0 to +2.0, n = 1) |" in table


def test_corruptions_change_images_and_cost_the_points_that_they_take(script: Callable[[str], Any]) -> None:
    corruptions, rng = script("corruptions"), np.random.default_rng(0)
    image = rng.random((corruptions.SIZE, corruptions.SIZE, 3))
    for name, corrupt in corruptions.CORRUPTIONS.items():
        found = corrupt(image.copy(), rng)
        assert found.shape == image.shape and np.allclose(found, image) == (name == "clean")
    means = [corruptions.CORRUPTIONS[name](image, rng).mean() for name in ("contrast", "brightness")]
    assert means[0] == pytest.approx(image.mean()) and means[1] > image.mean() + 0.1
    right = np.ones((7, 10), bool)
    right[1:4, :5] = False  # three of six corruptions take half of the images: 25 points
    loss, low, high = corruptions.loss_interval([right, right])
    assert loss == 25 and low < 25 < high
    table = corruptions.format_table(corruptions.summarize({("rsscn7", "Full"): [right, right]}))
    assert f"| RSSCN7 | Full | 2 | 100.0 ± 0.0 | 50.0 ± 0.0 |{' 50.0 ± 0.0 |' * 2}" in table
    assert f"| 25.0 ({low:.1f} to {high:.1f}) |" in table


def test_prompt_family_has_paired_differences_of_complete_cells(script: Callable[[str], Any]) -> None:
    family = script("prompt_family")
    ours, theirs = np.ones((3, 40), bool), np.ones((3, 40), bool)
    theirs[:, :10] = False
    points, low, high = family.difference(ours, theirs)
    assert points == 25 and 5 < low < 25 < high < 45
    assert family.difference(ours, ours) == (0, 0, 0)

    def cell(top1: float) -> SimpleNamespace:
        config = {"method": "vpt(length=50, dropout=0, init=tokens)"}
        record = SimpleNamespace(parameters={"trainable": 12_000}, cost={"file_bytes": 50_000}, config=config)
        return SimpleNamespace(final_records=(record,), scores=(top1, top1 + 0.02))

    cells = {("rsscn7", family.REFERENCE): cell(0.5), ("rsscn7", "BPT"): cell(0.75), ("rsscn7", "SPT"): cell(0.6)}
    rows = family.summarize(cells, {("rsscn7", family.REFERENCE): theirs, ("rsscn7", "BPT"): ours})
    assert [row["method"] for row in rows] == ["BPT", "SPT", family.REFERENCE]
    table = family.format_table(rows)
    assert f"| BPT | 12 | 50 | 1.00 | 1.00 | – | – | 76.0 ± 1.4 | +25.0 (+{low:.1f} to +{high:.1f}) |" in table
    assert "| SPT | 12 | 50 | 1.00 | 1.00 | – | – | 61.0 ± 1.4 | – |" in table


def test_rate_curves_have_a_point_for_each_rate(
    script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    curves = script("rate_curves")

    def record(rate: float, score: float | None, status: str = "done") -> SimpleNamespace:
        training = {"learning_rate": rate, "batch_size": 16}
        return SimpleNamespace(config={"training": training}, score=score, status=status)

    def cell(method: str, *records: SimpleNamespace) -> SimpleNamespace:
        return SimpleNamespace(method=method, task=SimpleNamespace(name="rsscn7-5"), search_records=records)

    probe = record(0.16, 0.5), record(0.16, 0.6), record(0.08, 0.25)  # two weight decays
    cells = {1: cell("probe", *probe), 2: cell("Full", record(0.16, 0.5), record(1.6, None, "diverged")), 3: cell("x")}
    monkeypatch.setattr(curves, "load_results", lambda *stores: SimpleNamespace(cells=cells))
    found = curves.read_curves([tmp_path])
    assert found == {"probe": {"rsscn7": {0.005: 25.0, 0.01: 60.0}}}
    assert "| probe | RSSCN7 | 0.005: 25.0, 0.01: **60.0** |" in curves.format_table(found)


def test_images_per_class_pairs_prompts_with_others_by_draw(
    script: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("images_per_class")
    ours, prompts = "VPT-deep, p = 50, with a ridge head", "VPT-deep, p = 50"
    runs = {
        ("signdigits-5", ours, 224): (0.6, 0.7), ("signdigits-5", "Full", 224): (0.5, 0.5),
        ("signdigits-5", "LoRA", 224): (0.9,),  # lacks a draw
        ("signdigits-1", prompts, 224): (0.2, 0.2),
        ("caltech101-5", "LoRA", 160): (0.9, 0.9),  # prompts are not done there
    }  # fmt: skip
    lines = ["run_id,task,method,stage,seed,image_size,processor,gpus,metric,value"] + [
        f'"{task}{method}{seed}",{task},"{method}",final,{seed},{size},CPU,{"GPU" if size == 160 else ""},top1,{score}'
        for (task, method, size), scores in runs.items()
        for seed, score in reversed(list(enumerate(scores)))
    ]
    (tmp_path / "runs.csv").write_text("\n".join(lines), encoding="utf-8")
    cells = module.read_all([tmp_path])
    assert {key: list(one.top1) for key, one in cells.items() if key[0] == "signdigits"} == {
        ("signdigits", 5, ours): [60, 70], ("signdigits", 5, "Full"): [50, 50],
        ("signdigits", 1, ours): [20, 20], ("signdigits", 1, prompts): [20, 20],
    }  # fmt: skip
    (row,) = module.compare(cells, {})
    assert (row["set"], row["images"], row["above"], row["over"]) == ("signdigits", 5, "Full", "seeds")
    half = 12.7062 * statistics.stdev([10, 20]) / 2**0.5
    assert [row[name] for name in ("points", "low", "high")] == pytest.approx([15, 15 - half, 15 + half], abs=1e-3)
    table = module.format_scores_table(cells)
    assert "| set | images | n | VPT-deep, p = 50 | VPT-deep, p = 50, with a ridge head | LoRA | Full |" in table
    assert "| sign digits | 5 | 2 | – | 65.0 ± 7.1 | – | 50.0 ± 0.0 |" in table
    assert "| Caltech-101, 160 px | 5 | 2 | – | – | 90.0 ± 0.0 | – |" in table
    assert table.endswith("Runs in bf16 on CPU and GPU.")
    differences = module.format_differences(cells, [row], ours)
    assert f"| sign digits | 5 | +15.0 ({15 - half:+.1f} to {15 + half:+.1f}) | – | – | – | seeds |" in differences

    monkeypatch.setattr(module, "ANSWERS", tmp_path / "answers.json")
    for method, rights in ((ours, (6, 7)), ("Full", (5, 5))):
        for seed, right in enumerate(rights):
            answers = {"images": "0", "right": [1] * right + [0] * (10 - right)}
            (tmp_path / f"signdigits-5{method}{seed}.json").write_text(json.dumps(answers), encoding="utf-8")
    module.keep_answers(tmp_path, [run_id for one in cells.values() for run_id in one.ids])
    kept = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    (row,) = module.compare(cells, kept)
    assert row["points"] == pytest.approx(15) and row["low"] < 10 < 20 < row["high"], "over images, too"
    assert row["over"] == "seeds and images"
    (tmp_path / f"signdigits-5{ours}0.json").write_text('{"images": "0", "right": [1, 1, 0, 0]}', encoding="utf-8")
    module.keep_answers(tmp_path, [f"signdigits-5{ours}0"])
    kept = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    with pytest.raises(SystemExit, match=r"scored 60.0 %, and 50.0 % of its answers are right"):
        module.compare(cells, kept)
    kept[f"signdigits-5{ours}0"]["images"] = "1"
    with pytest.raises(SystemExit, match="answered different images: score them again"):
        module.compare(cells, kept)


def test_defaults_choose_a_rate_by_all_sets_and_check_it_on_each(script: Callable[[str], Any]) -> None:
    defaults = script("defaults_report")
    probe, head = (defaults.PROBE, defaults.PROBE_EPOCHS, 0, 1.0), defaults.SHIPPED
    top1 = {"signdigits": (50, 61), "rsscn7": (50, 61), "dtd10": (50, 61), "caltech101": (80, 50)}
    results = {(name, *probe): {"trained head alone": 40.0} for name in top1}
    for name, scores in top1.items():
        for factor, score in zip((1.0, 2.0), scores, strict=True):
            results[name, "vpt", 3, 0, factor] = {"trained head alone": 30.0, head: float(score)}
    assert defaults.choose({1.0: {"a": 1.0}, 0.5: {"a": 1.0}, 4.0: {"a": 0.5}}, ["a"]) == 1.0, "of equals the default"
    choice = defaults.format_choice(results).splitlines()[-1]
    # All sets choose 2 (58.25 of 57.5), and so do those without Caltech-101, where it costs 30 points. Without another
    # one, the three left choose 1 (60 of 57.3).
    assert choice == "| 3 | `vpt` | 2 | +0.0 | +0.0 | +0.0 | -30.0 |"
    verdicts = defaults.format_verdicts(results).splitlines()
    assert verdicts[-1] == "| 3 | `vpt` | 4 of 4 | 4 of 4 |"
    results["rsscn7", *probe]["ridge regression"] = 50.0  # the better probe counts, and what is equal is not above
    assert defaults.format_verdicts(results).splitlines()[-1] == "| 3 | `vpt` | 4 of 4 | 3 of 4 |"
    del results["rsscn7", *probe]["ridge regression"]
    table = defaults.format_table(results, "val")
    assert f"| 3 | `vpt` | 2 | {head} | +21.0 (1) | +21.0 (1) | +21.0 (1) | +10.0 (1) |" in table
    assert defaults.rates_of(results)["vpt"]["caltech101"] == pytest.approx({0.005: 80.0, 0.01: 50.0})
    results["caltech101", "vpt", 10, 0, 0.5] = {head: 90.0}  # a longer training
    results["caltech101", "vpt", 3, 1, 1.0] = {head: 90.0}  # a seed that the other rate lacks
    results["dtd10", "full", 3, 0, 1.0] = {head: 90.0}  # one rate alone
    assert defaults.rates_of(results)["vpt"]["caltech101"] == pytest.approx({0.005: 80.0, 0.01: 50.0})
    assert list(defaults.rates_of(results)) == ["vpt"]
