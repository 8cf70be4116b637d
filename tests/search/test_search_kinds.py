"""Searches for several labels and for numbers: folds, recipes, choices and results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulation import SimulatedClock

import vpt
from helpers.command_line import vpt as command
from vpt.core.input_files import OUTSIDE_VARIABLE
from vpt.search.candidates import make_candidate
from vpt.search.comparison import Comparison
from vpt.search.trials import strata_of

Search = Callable[..., tuple[vpt.RunResult, SimulatedClock]]


def test_strata_of_folds_spread_rare_labels_and_numbers() -> None:
    assert strata_of(np.array([2, 0, 1])).tolist() == [2, 0, 1]
    several = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0]], np.float32)
    assert strata_of(several).tolist() == [1, 0, 2, 3]
    numbers = np.random.default_rng(0).permutation(40).astype(np.float32)
    found = strata_of(numbers)
    assert np.bincount(found).tolist() == [4] * 10
    assert all(numbers[found == k].max() < numbers[found == k + 1].min() for k in range(9))


def test_recipe_of_a_number_has_no_rate_of_sgd() -> None:
    assert make_candidate("sidetune", "regression").recipe == {
        "batch_size": 16, "optimizer": "adamw", "learning_rate": 0.016
    }  # fmt: skip
    assert make_candidate("vpt", "regression").recipe == make_candidate("vpt").recipe


@pytest.fixture
def tables(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tables of the same images: the light as a number, and several labels."""
    monkeypatch.setenv(OUTSIDE_VARIABLE, "1")  # the images are those of other tests, too
    lights = {"dark": 60.5, "gray": 110.5, "light": 160.5}
    tags = {"dark": "night", "gray": "day|cloudy", "light": "day"}
    files = sorted(images.rglob("*.png"))
    for name, label_of in (("light", lights), ("tags", tags)):
        rows = [f"{path.as_posix()},{label_of[path.parent.name]},{path.parts[-3]}\n" for path in files]
        (tmp_path / f"{name}.csv").write_text("image,label,split\n" + "".join(rows))
    return tmp_path


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(("name", "metric"), [("light", "auto"), ("light", "mae"), ("tags", "auto")])
def test_search_of_other_kinds_chooses_by_their_metric(search: Search, tables: Path, name: str, metric: str) -> None:
    result, clock = search(str(tables / f"{name}.csv"), step=1.5, method="vpt(length=4)", metric=metric)
    counted = {"light": "r2", "tags": "map"}[name] if metric == "auto" else metric
    assert result.search is not None and result.search["metric"] == counted
    assert result.metric == f"test_{counted}" and result.search["score"] == result.score
    low, high = result.search["interval"]
    assert low <= result.score <= high
    rows = {row["method"]: row for row in result.search["candidates"] if row["status"] == "tried"}
    assert rows["vpt(length=4)"]["comparison"]["metric"] == counted and "linear" in rows
    label = {"r2": r"R² ", "mae": "MAE ", "map": "mAP"}[counted]
    assert any(label in note and "out of fold" in note for note in clock.notes)
    assert "bootstrap p" in result.search["summary"]
    kept = result.search["selected"] == "the probe"
    assert result.search["comparison_split"] == ("out_of_fold" if kept else "test")
    scores = vpt.evaluate(result.file, str(tables / f"{name}.csv"), progress=False)
    assert scores.metrics[counted] == pytest.approx(result.score, abs=1e-4)
    assert (Path(result.run_dir) / ("scatter.png" if name == "light" else "classes.png")).exists()


@pytest.mark.usefixtures("few_steps")
def test_search_of_numbers_ships_the_model_that_its_command_repeats(
    search: Search, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Comparison, "convinces", property(lambda self: True))
    result, _ = search(str(tables / "light.csv"), step=1.5, method="vpt(length=4)")
    assert result.method == "vpt(length=4)" and result.search is not None
    command("tune", "--config", tmp_path / "a.run" / "run.toml", "--out", tmp_path / "again.safetensors")
    again = json.loads((tmp_path / "again.run" / "result.json").read_text())
    assert again["metrics"]["test_r2"] == pytest.approx(result.metrics["test_r2"], abs=1e-6)


def test_search_of_several_labels_chooses_thresholds_out_of_fold(search: Search, tables: Path) -> None:
    result, _ = search(str(tables / "tags.csv"), method="linear")
    kind: Any = vpt.load(result.file).label_kind
    assert len(kind.thresholds) == 3 and set(kind.thresholds) != {0.5}
    assert result.metrics["test_macro_f1"] > 0.5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("light", {"metric": "map"}, "metric is 'map', and the labels are regression; write r2, mae, or leave it out"),
        ("tags", {"metric": "top1"}, "metric is 'top1', and the labels are multi_label; write map"),
        ("tags", {"images_per_class": 2}, "images_per_class is 2, and the labels are multi_label"),
    ],
)
def test_search_with_options_of_another_kind_is_refused(
    search: Search, tables: Path, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(vpt.SpecError, match=message):
        search(str(tables / f"{name}.csv"), method="linear", **options)
