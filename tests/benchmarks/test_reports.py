"""Tables and figures of the benchmarks are made from runs as they say."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest


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
        ("signdigits-all", ours, 224): (0.9,), ("signdigits-all", "Full", 224): (0.8,),
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
        ("signdigits", module.ALL, ours): [90], ("signdigits", module.ALL, "Full"): [80],
    }  # fmt: skip
    row, one = module.compare(cells, {})
    assert (row["set"], row["images"], row["above"], row["over"]) == ("signdigits", 5, "Full", "draws")
    half = 12.7062 * statistics.stdev([10, 20]) / 2**0.5
    assert [row[name] for name in ("points", "low", "high")] == pytest.approx([15, 15 - half, 15 + half], abs=1e-3)
    table = module.format_scores_table(cells)
    assert "| dataset | images | n | VPT-deep, p = 50 | VPT-deep, p = 50, with a ridge head | LoRA | Full |" in table
    assert "| sign digits | 5 | 2 | – | 65.0 ± 7.1 | – | 50.0 ± 0.0 |" in table
    assert "| Caltech-101, 160 px | 5 | 2 | – | – | 90.0 ± 0.0 | – |" in table
    assert table.endswith("Runs in bf16 on CPU and GPU.")
    assert "| sign digits | all | 1 | – | 90.0 | – | 80.0 |" in table
    differences = module.format_differences(cells, [row, one], ours)
    assert "| sign digits | all | +10.0 | – | – | – | draws |" in differences
    assert f"| sign digits | 5 | +15.0 ({15 - half:+.1f} to {15 + half:+.1f}) | – | – | – | draws |" in differences

    monkeypatch.setattr(module, "ANSWERS", tmp_path / "answers.json")
    for method, rights in ((ours, (6, 7)), ("Full", (5, 5))):
        for seed, right in enumerate(rights):
            answers = {"images": "0", "right": [1] * right + [0] * (10 - right)}
            (tmp_path / f"signdigits-5{method}{seed}.json").write_text(json.dumps(answers), encoding="utf-8")
    module.keep_answers(tmp_path, [run_id for one in cells.values() for run_id in one.ids])
    kept = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    row, _ = module.compare(cells, kept)
    assert row["points"] == pytest.approx(15) and row["low"] < 10 < 20 < row["high"], "over images, too"
    assert row["over"] == "draws and images"
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
    assert verdicts[-1] == "| 3 | `vpt` | 4 of 4 | 4 of 4 | 4 of 4 | 4 of 4 |"
    results["rsscn7", *probe]["ridge regression"] = 50.0  # the better probe counts, and what is equal is not above
    assert defaults.format_verdicts(results).splitlines()[-1] == "| 3 | `vpt` | 4 of 4 | 3 of 4 | 4 of 4 | 4 of 4 |"
    del results["rsscn7", *probe]["ridge regression"]
    table = defaults.format_table(results, "val")
    assert f"| 3 | `vpt` | 2 | {head} | +21.0 (1) | +21.0 (1) | +21.0 (1) | +10.0 (1) |" in table
    assert defaults.rates_of(results)["vpt"]["caltech101"] == pytest.approx({0.005: 80.0, 0.01: 50.0})
    results["caltech101", "vpt", 10, 0, 0.5] = {head: 90.0}  # a longer training
    results["caltech101", "vpt", 3, 1, 1.0] = {head: 90.0}  # a seed that the other rate lacks
    results["dtd10", "full", 3, 0, 1.0] = {head: 90.0}  # one rate alone
    assert defaults.rates_of(results)["vpt"]["caltech101"] == pytest.approx({0.005: 80.0, 0.01: 50.0})
    assert list(defaults.rates_of(results)) == ["vpt"]


def test_curves_of_all_images_have_their_quarters(
    script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = script("all_images")
    validated = {2: 0.5, 3: 0.75, 4: 0.8}
    history = [{"epoch": epoch, "train_loss": 2.0 / epoch, "val_metric": validated.get(epoch)} for epoch in range(1, 5)]

    def cell(method: str, history: list[dict[str, Any]]) -> SimpleNamespace:
        records = [SimpleNamespace(history=history)]
        return SimpleNamespace(method=method, task=SimpleNamespace(name="rsscn7-all"), final_records=records)

    cells = {1: cell("Full", history), 2: cell("class token probe", [])}
    monkeypatch.setattr(module, "load_results", lambda *stores: SimpleNamespace(cells=cells))
    curves = module.read_curves([tmp_path])
    assert list(curves["rsscn7"]) == ["Full"]
    assert "| RSSCN7 | Full | 4 | 50.0 | 75.0 | 80.0 | 0.500 |" in module.format_table(curves)
    module.draw(curves, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


def test_risk_counts_searches_that_lose_to_their_probe(script: Callable[[str], Any]) -> None:
    risk = script("risk")
    searched = {"minutes": 10, "score": 0.5, "images": 400, "seconds": 500.0, "summary": "", "candidates": []}
    kept = risk.summarize({**searched, "selected": "the probe", "comparison": {"gain": 0.5}})
    assert kept["gain"] == 0, "a comparison of what was not shipped"
    shipped = risk.summarize({**searched, "selected": "vpt", "comparison": {"gain": -0.02}})
    gains = [{"set": "dtd10", "images": 10, "draw": draw, **one} for draw, one in enumerate((kept, shipped))]
    table = risk.tabulate(gains)
    assert "| DTD-10 | 10 | 2 | 1 | -1.0 | -2.0 | +0.0 |" in table
    assert "All 2: mean -1.0 points" in table and "1 lose more than 1 point" in table
