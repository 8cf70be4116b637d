"""Searches of data and options that go wrong in one way, and the words in which they end."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from simulation import SimulatedClock, write_images

import vpt
from helpers.command_line import vpt as command
from vpt.backbones import load_backbone
from vpt.data.memory.datasets import dataset_from_memory
from vpt.data.training_marks import has_marked
from vpt.errors import TrainingError
from vpt.search.backbones import advise
from vpt.search.candidates import make_candidate
from vpt.search.comparison import Comparison, compare
from vpt.search.rows import best_row
from vpt.search.selection import Selection
from vpt.tasks.search_rows import describe_status
from vpt.training.ridge import Ridge

Search = Callable[..., tuple[vpt.RunResult, SimulatedClock]]
PROMPTS = "vpt(length=4)"


def rows_of(result: vpt.RunResult) -> dict[str, dict[str, Any]]:
    assert result.search is not None
    return {row["method"]: row for row in result.search["candidates"]}


def logits(predicted: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(4.0 * (np.arange(3) == predicted[:, None]))


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_metric_of_rare_classes_decides_what_ships(metric: str) -> None:
    """Of 200 images, the model finds the 20 of two rare classes, and misses 19 of the common one."""
    labels = np.repeat([0, 1, 2], [180, 10, 10])
    ours = np.where(np.arange(200) < 19, 1, labels)
    found = compare(logits(ours), logits(np.zeros(200, np.int64)), labels, metric)
    assert found.wins is None and found.gain_in_errors > 5 and found.convinces
    plain = compare(logits(ours), logits(np.zeros(200, np.int64)), labels, "top1")
    assert (plain.wins, plain.losses) == (20, 19) and not plain.convinces
    assert "bootstrap p" in found.describe("prompts") and "McNemar" in plain.describe("prompts")


def row_of(name: str, gain: float, loss_gain: float, folds: int = 1) -> dict[str, Any]:
    against = Comparison(100, "top1", gain, gain - 0.1, gain + 0.1, 0.01, 40, 20, 0.01, loss_gain)
    return {"method": name, "status": "tried", "score": 0.9 + gain, "folds": folds, "comparison": vars(against)}


def test_best_row_convinces_before_it_scores() -> None:
    rows = [row_of("loud", 0.05, -0.1), row_of("sound", 0.03, 0.1), row_of("late", 0.02, 0.2, folds=2)]
    best = best_row([{"method": "none", "status": "dropped"}, *rows])
    assert best is not None and best["method"] == "sound"
    assert best_row([]) is None


def test_recipe_of_a_given_batch_size_keeps_the_peak_rate() -> None:
    for method in ("vpt", "full", "lora"):
        peaks = [make_candidate(method, batch_size=size).recipe["learning_rate"] * size for size in (16, 64, 256)]
        assert peaks == pytest.approx([peaks[0]] * 3)
    assert make_candidate("vpt", batch_size=64).recipe["batch_size"] == 64


@pytest.mark.usefixtures("few_steps")
def test_search_with_options_of_training_that_keeps_the_probe_is_repeated(search: Search, tmp_path: Path) -> None:
    search(method="linear", augment="flip", ema=0.9, layer_decay=1.0, probe_epochs=1)
    command("tune", "--config", tmp_path / "a.run" / "run.toml", "--out", tmp_path / "again.safetensors")
    files = [vpt.load(tmp_path / f"{name}.safetensors").trainable_state_dict() for name in ("a", "again")]
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())


@pytest.mark.usefixtures("few_steps")
def test_search_of_images_of_one_group_tries_nothing_beside_the_probe(
    search: Search, images: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    shutil.copytree(images, tmp_path / "images")
    paths = sorted(tmp_path.glob("images/*/*/*.png"))
    with table.open("w", newline="") as file:
        rows = [(path, path.parent.name, path.parts[-3], "a" if "train" in path.parts else path.stem) for path in paths]
        csv.writer(file).writerows([("image", "label", "split", "group"), *rows])
    result, _ = search(table, val_fraction=0.0, group_column="group")
    statuses = {describe_status(row) for row in rows_of(result).values() if row["method"] != "linear"}
    assert statuses == {"skipped: the images are one group, of which none can be left out"}
    assert result.search is not None and result.search["summary"].startswith("the images are one group")


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), f"{PROMPTS}: out of memory: give a smaller --batch-size"),
        (TrainingError("the loss is nan"), f"{PROMPTS}: diverged: the loss is nan"),
    ],
)
@pytest.mark.parametrize("stage", ["measure_step", "run_trial"])
def test_search_whose_candidate_fails_keeps_the_probe_and_says_why(
    search: Search, monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception, words: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(f"vpt.search.selection.{stage}", fail)
    result, _ = search(method=PROMPTS)
    assert result.method == "linear" and result.search is not None
    assert result.search["summary"] == f"{words}: the probe was kept"


def test_tune_from_the_command_line_searches(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.safetensors"
    command("tune", images, "--out", out, "--method", "linear", "--minutes", 1)
    assert "only the probe was requested" in capsys.readouterr().out and out.exists()


def test_search_for_the_probe_alone_says_so(search: Search) -> None:
    result, _ = search(method="linear")
    assert result.search is not None
    assert result.search["summary"] == "only the probe was requested: the probe was kept"


@pytest.mark.usefixtures("few_steps")
def test_search_drops_what_is_far_below_the_probe_after_one_fold(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vpt.search.selection._HOPELESS", float("inf"))
    result, _ = search(method=PROMPTS)
    assert rows_of(result)[PROMPTS]["status"] == "dropped"


@pytest.mark.usefixtures("few_steps")
def test_search_without_test_images_marks_its_comparison(
    search: Search, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Comparison, "convinces", property(lambda self: True))
    result, _ = search(images / "train", method=PROMPTS, test_fraction=0.0, val_fraction=0.0)
    assert result.method == PROMPTS and result.search is not None and result.search["optimistic"]
    assert result.search["summary"].endswith("out of fold, on images that took part in the choice")
    assert Path(result.run_dir, "search.png").stat().st_size > 1000


def test_search_of_a_class_too_small_for_a_test_split_says_so(search: Search, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images / "train", tmp_path / "data")
    for path in sorted((tmp_path / "data" / "dark").iterdir())[1:]:
        path.unlink()
    result, clock = search(tmp_path / "data", method="linear")
    assert result.search is not None and result.search["optimistic"]
    assert any("classes of one or two images are too small" in note for note in clock.notes)


@pytest.mark.usefixtures("few_steps")
def test_search_of_a_class_with_two_images_measures_one_of_them(search: Search, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images / "train", tmp_path / "data")
    for path in sorted((tmp_path / "data" / "dark").iterdir())[2:]:
        path.unlink()
    result, clock = search(tmp_path / "data", method=PROMPTS)
    assert result.search is not None and not result.search["optimistic"]
    assert "val" not in result.images and result.images["test"] == result.search["images"] == 9
    assert not any("too small to split" in note for note in clock.notes)


def test_search_of_classes_with_two_images_each_leaves_both_to_train(
    search: Search, images: Path, tmp_path: Path
) -> None:
    shutil.copytree(images / "train", tmp_path / "data")
    for folder in (tmp_path / "data").iterdir():
        for path in sorted(folder.iterdir())[2:]:
            path.unlink()
    result, clock = search(tmp_path / "data", method="linear")
    assert result.search is not None and result.search["optimistic"] and result.search["images"] == 6
    assert not any("each class has one training image" in note for note in clock.notes)


@pytest.fixture
def two_backbones(monkeypatch: pytest.MonkeyPatch) -> str:
    """Names of two backbones that need no download."""
    names = ("vit_nano_patch12_48", "test_vit.r160_in1k")

    def load(name: str, **options: Any) -> Any:
        if name == names[0]:
            return load_backbone(name)
        return replace(load_backbone(timm.create_model("test_vit", num_classes=0, img_size=48)), name=name)

    monkeypatch.setattr("vpt.tasks.classification.task.load_backbone", load)
    return ",".join(names)


def test_ranking_of_backbones_reads_only_the_labels_that_may_be_used(search: Search, two_backbones: str) -> None:
    result, _ = search(method="linear", backbone=two_backbones, images_per_class=4)
    assert result.search is not None and {row["images"] for row in result.search["backbones"]["candidates"]} == {12}


def test_ranking_of_backbones_leaves_out_what_cannot_be_read(
    search: Search, images: Path, two_backbones: str, tmp_path: Path
) -> None:
    shutil.copytree(images, tmp_path / "data")
    next((tmp_path / "data" / "train" / "dark").iterdir()).write_bytes(b"no image")
    result, _ = search(tmp_path / "data", method="linear", backbone=two_backbones, skip_corrupt=True)
    assert result.search is not None and {row["images"] for row in result.search["backbones"]["candidates"]} == {59}


def test_one_image_of_each_class_ranks_no_backbones(search: Search, two_backbones: str) -> None:
    result, clock = search(backbone=two_backbones, images_per_class=1)
    assert result.search is not None and result.search["backbones"]["candidates"] == []
    assert result.backbone == "vit_nano_patch12_48"
    assert not any("test_vit" in note for note in clock.notes)
    assert any("one image of each class ranks no backbones" in note for note in clock.notes)


def test_search_too_short_to_rank_backbones_takes_the_first(search: Search, two_backbones: str) -> None:
    result, _ = search(method="linear", backbone=two_backbones, image=0.4, minutes=0.2)
    assert result.search is not None and result.search["backbones"]["candidates"] == []
    assert result.backbone == "vit_nano_patch12_48"
    assert "and two of each class are 6; give more --minutes" in result.search["backbones"]["summary"]


def test_search_among_one_backbone_named_twice_ranks_nothing(search: Search) -> None:
    result, _ = search(method="linear", backbone="vit_nano_patch12_48,vit_nano_patch12_48")
    assert result.search is not None and result.search["backbones"] is None


def test_advice_says_which_weights_are_here_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--timm--vit_small_patch16_224.augreg_in21k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    text = advise(torch.device("cpu"))
    assert "120 MB that are here already, Apache-2.0" in text and "410 MB, Apache-2.0" in text


def test_search_of_arrays_has_no_command_that_repeats_it(search: Search) -> None:
    rng = np.random.default_rng(0)
    data = dataset_from_memory({"train": (rng.integers(0, 256, (30, 48, 48, 3), dtype=np.uint8), [*"abc"] * 10)})
    result, clock = search(data, method="linear")
    assert result.search is not None and result.search["repeat_command"] is None
    assert "is for trying" in clock.notes[0]


def test_outputs_of_a_trial_are_compared_on_equal_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Selection, "_outputs_of_probe", lambda self, *fold: logits(np.zeros(4, np.int64)))
    selection = Selection.__new__(Selection)
    object.__setattr__(selection, "request", type("Request", (), {"metric": "top1"}))
    fold = type("Fold", (), {"labels": np.zeros(4, np.int64), "groups": None})
    assert not selection._is_hopeless(logits(np.zeros(4, np.int64)), fold(), {"folds": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(("gain", "expected"), [(-1.9, False), (-2.1, True)])
def test_trial_is_hopeless_two_standard_errors_behind(
    monkeypatch: pytest.MonkeyPatch, gain: float, expected: bool
) -> None:
    monkeypatch.setattr(Selection, "_outputs_of_probe", lambda self, *fold: np.zeros((4, 3)))
    monkeypatch.setattr("vpt.search.selection.compare", lambda *args: SimpleNamespace(gain_in_errors=gain))
    selection: Any = Selection.__new__(Selection)
    object.__setattr__(selection, "request", SimpleNamespace(metric="top1"))
    fold = SimpleNamespace(labels=np.zeros(4, np.int64), groups=None)
    assert selection._is_hopeless(np.zeros((4, 3)), fold, None) is expected


@pytest.mark.usefixtures("few_steps")
def test_candidate_of_one_fold_is_compared_with_a_probe_that_learns_from_val(search: Search, tmp_path: Path) -> None:
    root = tmp_path / "swapped"
    write_images(root / "train", 12)
    for name, other in (("gray", "other"), ("light", "gray"), ("other", "light")):  # train has wrong labels
        (root / "train" / name).rename(root / "train" / other)
    write_images(root / "val", 120, seed=1)
    write_images(root / "test", 30, seed=2)
    result, _ = search(root, method="vpt(length=2)", image=0.01, step=0.3)
    assert result.search is not None
    row = next(row for row in result.search["candidates"] if row["method"] == "vpt(length=2)")
    assert row["folds"] == 1 and row["status"] == "tried" and row["images"] == 120
    assert row["score"] - row["comparison"]["gain"] > 0.7  # of a probe that learns from train alone, a third is right
    assert result.search["selected"] == "the probe"


def test_probe_against_a_candidate_of_one_fold_learns_from_copies_in_train() -> None:
    rng = np.random.default_rng(0)
    ridge = Ridge(rng.normal(size=(30, 8)).astype(np.float16), [slice(0, 8)], rng.integers(3, size=30), 3)
    groups = np.where(np.arange(30) == 25, 3, np.arange(30))  # an image of val is a near copy of one of train
    selection = Selection.__new__(Selection)
    for name, value in {
        "pool": SimpleNamespace(takes_all=True, num_train=20), "head": "linear", "penalty": 1.0,
        "features": SimpleNamespace(groups=groups, ridge=lambda head: ridge), "folds": lambda count: [None],
    }.items():  # fmt: skip
        object.__setattr__(selection, name, value)
    found = selection._outputs_of_probe(1, 0)
    np.testing.assert_allclose(found, ridge.leave_out(1.0, np.arange(30)).logits[20:], rtol=1e-10)
    assert not np.allclose(found[5], ridge.leave_out(1.0, groups).logits[25])


@pytest.mark.usefixtures("few_steps")
def test_file_of_a_search_knows_the_images_of_val_that_it_learned_from(search: Search, tmp_path: Path) -> None:
    write_images(tmp_path / "data/train", 30)
    write_images(tmp_path / "data/val", 12, seed=1)
    write_images(tmp_path / "data/test", 12, seed=2)
    result, _ = search(tmp_path / "data", method="linear")
    marks = vpt.inspect(result.file).split_options["trained_on"]
    assert has_marked((tmp_path / "data/val").rglob("*.png"), marks)
    assert not has_marked((tmp_path / "data/test").rglob("*.png"), marks)
