"""Searches in segmentation: the head alone and prompts in equal times, compared on each image of val."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from simulation import Interrupted, SimulatedClock

import vpt
from vpt.search.segmentation import costs as mask_costs
from vpt.search.segmentation import search as segmentation
from vpt.search.segmentation.comparison import compare_masks, count_pixels, describe_masks
from vpt.tasks.search_rows import describe_status
from vpt.tasks.segmentation import pair_reader
from vpt.tasks.segmentation.config import SegmentationConfig
from vpt.tasks.segmentation.prediction import PixelScores

Search = Callable[..., tuple[vpt.RunResult, SimulatedClock]]
OPTIONS: dict[str, Any] = {"head": "linear", "image_size": 48, "batch_size": 2, "method": "vpt(length=2)", "image": 0.1}


@pytest.fixture
def search(search: Search) -> Search:
    """Searches whose steps are short enough for two trainings in a minute."""
    return partial(search, step=0.85)


def decisions(out: Path) -> dict[str, Any]:
    lines = out.with_suffix(".run").joinpath("decisions.jsonl").read_text().splitlines()
    return {line["decision"]: line["value"] for line in map(json.loads, lines)}


@pytest.mark.parametrize(("step", "minutes"), [(1.0, 1.5), (5.0, 1.0), (0.2, 0.3)])
def test_search_of_masks_ends_within_the_budget(search: Search, scenes: Path, step: float, minutes: float) -> None:
    result, clock = search(scenes, step=step, minutes=minutes, **OPTIONS)
    assert result.search is not None and clock.now <= 1.1 * 60 * minutes
    rows = {row["method"]: row for row in result.search["candidates"]}
    assert list(rows) == ["linear", "vpt(length=2)"]
    both = step < 5
    assert [describe_status(row) for row in rows.values()] == [
        "tried",
        "tried" if both else "no time: too few iterations fit",
    ]
    if both:
        assert rows["linear"]["iterations"] == rows["vpt(length=2)"]["iterations"] >= 20
        assert "the head alone" in result.search["summary"] and "3 images) on val" in result.search["summary"]
        better = max(rows.values(), key=lambda row: row["score"])
        assert result.search["selected"] in (better["method"], "linear")
    assert result.metric == "test_miou" and result.images == {"train": 8, "val": 3, "test": 4}
    assert vpt.evaluate(result.file, scenes, progress=False).metrics["miou"] == pytest.approx(result.score)


def name_of(row: dict[str, Any]) -> str:
    return row["method"] + (f" x {row['factor']:.2g}" if "factor" in row else "")


@pytest.mark.parametrize(("step", "expected"), [(0.13, 7), (0.3, 5), (0.38, 4), (0.51, 3), (0.77, 2)])
def test_search_of_masks_tries_more_methods_where_time_allows(
    search: Search, scenes: Path, monkeypatch: pytest.MonkeyPatch, step: float, expected: int
) -> None:
    monkeypatch.setattr(mask_costs, "_LONG_ENOUGH", 25)
    options = {name: value for name, value in OPTIONS.items() if name != "method"}
    result, clock = search(scenes, step=step, minutes=1.0, **options)
    assert result.search is not None and clock.now <= 1.1 * 60
    rows = result.search["candidates"]
    in_order = ["linear", "vpt", "full", "lora", "vpt + bias", "vpt x 3", "vpt x 0.33"]
    others = [row for row in rows if row["status"] != "tried"]
    assert {describe_status(row) for row in others} <= {"no time: too few iterations fit"}
    rows = [row for row in rows if row["status"] == "tried"]
    assert [name_of(row) for row in rows] == in_order[:expected] and len({row["iterations"] for row in rows}) == 1
    assert [row["method"] for row in others] == [name for name in in_order[expected:] if " x " not in name]
    assert rows[0]["iterations"] >= (25 if expected > 2 else 20)
    gains = {name_of(row): row["comparison"] for row in rows[1:]}
    convincing = {name: one["gain"] for name, one in gains.items() if one["gain"] > one["error"]}
    best = max(convincing, key=convincing.__getitem__) if convincing else "linear"
    assert result.search["selected"] == best.replace(" x 0.33", " x 0.333").replace(" x ", ", rate x ")
    assert result.search["comparison_split"] == ("test" if convincing else "val" if gains else None)


@pytest.mark.parametrize(("max_size", "refused"), [(10.0, False), (0.1, True)])
def test_search_of_masks_tries_full_fine_tuning_where_its_size_is_accepted(
    search: Search, scenes: Path, monkeypatch: pytest.MonkeyPatch, max_size: float, refused: bool
) -> None:
    monkeypatch.setattr(mask_costs, "_LONG_ENOUGH", 25)
    options = {name: value for name, value in OPTIONS.items() if name != "method"}
    result, _ = search(scenes, step=0.3, minutes=1.0, max_size=max_size, **options)
    assert result.search is not None
    rows = {row["method"]: row for row in result.search["candidates"]}
    assert list(rows) == ["linear", "vpt", "full", "lora", "vpt + bias"]
    assert describe_status(rows["full"]).endswith("above --max-size 0.1" if refused else "tried")
    assert ("score" in rows["full"]) is not refused


def test_search_of_masks_with_nothing_else_gives_the_reason(search: Search, scenes: Path) -> None:
    given = {name: value for name, value in OPTIONS.items() if name != "method"}
    result, _ = search(scenes, step=0.3, minutes=1.0, max_size=1e-3, **given)
    assert result.search is not None and "vpt: skipped: it adds" in result.search["summary"]
    assert [row["status"] for row in result.search["candidates"]] == ["tried", *["skipped"] * 4]


def test_search_of_masks_goes_on_where_a_method_cannot_be_measured(
    search: Search, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = mask_costs.train_model

    def fail(job: Any, *given: Any) -> Any:
        if job.method in faults:
            raise faults[job.method]
        return train(job, *given)

    faults: dict[str, Exception] = {
        "vpt": vpt.UnsupportedError("no tokens"),
        "full": MemoryError(),
        "lora": vpt.TrainingError("the loss is nan"),
    }
    monkeypatch.setattr(mask_costs, "train_model", fail)
    monkeypatch.setattr(mask_costs, "_LONG_ENOUGH", 25)
    given = {name: value for name, value in OPTIONS.items() if name != "method"}
    result, _ = search(scenes, step=0.3, minutes=1.0, **given)
    assert result.search is not None
    found = {row["method"]: describe_status(row) for row in result.search["candidates"]}
    assert found["vpt"] == "skipped: no tokens" and found["lora"] == "diverged: the loss is nan"
    assert found["full"].startswith("out of memory: give") and found["vpt + bias"] == "tried"
    with pytest.raises(vpt.UnsupportedError, match="no tokens"):
        search(scenes, out="b.safetensors", method="vpt", **given)


def test_search_of_masks_goes_on_where_a_candidate_does_not_fit_into_memory(
    search: Search, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = segmentation.train_model

    def fail(job: Any, *given: Any) -> Any:
        if job.method != "linear":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return train(job, *given)

    monkeypatch.setattr(segmentation, "train_model", fail)
    result, _ = search(scenes, **OPTIONS)
    assert result.search is not None and result.search["selected"] == "linear"
    assert result.search["candidates"][1]["status"] == "out_of_memory"


def test_search_of_masks_goes_on_where_a_candidate_has_no_finite_scores(
    search: Search, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = segmentation.MaskSearch.score

    def fail(self: Any, model: Any, dataset: Any, split: str) -> Any:
        if str(model.method) != "linear":
            raise vpt.TrainingError("outputs of the model are NaN")
        return score(self, model, dataset, split)

    monkeypatch.setattr(segmentation.MaskSearch, "score", fail)
    result, _ = search(scenes, **OPTIONS)
    assert result.search is not None and result.search["selected"] == "linear"
    assert result.search["candidates"][1]["status"] == "diverged"


def test_search_of_masks_with_another_rate_ships_and_repeats_it(
    search: Search, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(ours: Any, theirs: Any) -> dict[str, float]:
        compared.append(len(ours))
        return {**compare_masks(ours, theirs), "gain": 0.01 * len(compared), "error": 0.001}

    compared = list[int]()
    monkeypatch.setattr(segmentation, "compare_masks", compare)
    monkeypatch.setattr(mask_costs, "_LONG_ENOUGH", 20)
    result, _ = search(scenes, step=0.2, minutes=1.0, **OPTIONS)
    assert result.search is not None and [name_of(row) for row in result.search["candidates"]] == [
        "linear", "vpt(length=2)", "vpt(length=2) x 3", "vpt(length=2) x 0.33",
    ]  # fmt: skip
    default = SegmentationConfig.for_method(vpt.parse_method("vpt(length=2)"))
    options = tomllib.loads((tmp_path / "a.run" / "run.toml").read_text(encoding="utf-8"))
    rate, usual = options["learning_rate"], default.training.learning_rate
    assert options["learning_rate"] * options["head_lr_scale"] == pytest.approx(0.03)
    assert result.search["selected"] == "vpt(length=2), rate x 0.333" and rate == pytest.approx(usual / 3)


def test_search_of_masks_interrupted_goes_on_to_the_same_file(search: Search, scenes: Path, tmp_path: Path) -> None:
    whole, _ = search(scenes, out="whole.safetensors", **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        search(scenes, clock=Interrupted(0.1, 0.85, 7), **OPTIONS)
    before = decisions(tmp_path / "a.safetensors")
    resumed, _ = search(scenes, **OPTIONS)
    assert before.items() <= decisions(tmp_path / "a.safetensors").items()
    assert resumed.metrics == whole.metrics
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    os.utime(next(scenes.rglob("*.jpg")))
    assert search(scenes, **OPTIONS)[0] == resumed


def test_search_of_masks_decodes_each_image_once_for_all_candidates(
    search: Search, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, load = Counter[str](), pair_reader.load_pair

    def count(pairs: Any, index: int, *rest: Any) -> Any:
        read[pairs.names[index]] += 1
        return load(pairs, index, *rest)

    monkeypatch.setattr(pair_reader, "load_pair", count)
    result, _ = search(scenes, **OPTIONS)
    assert result.search is not None and [row["status"] for row in result.search["candidates"]] == ["tried"] * 2
    assert len(read) == 15 and set(read.values()) == {1}
    read.clear()
    search(scenes, out="streamed.safetensors", loading="stream", workers=0, **OPTIONS)
    assert min(count for name, count in read.items() if "train" in name) > 5
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "streamed.safetensors").read_bytes()


def test_search_of_masks_with_other_test_images_decides_the_same(search: Search, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes, tmp_path / "poisoned")
    for mask in sorted((tmp_path / "poisoned" / "masks" / "test").iterdir()):
        with Image.open(mask) as image:
            swapped = Image.fromarray(1 - np.asarray(image).clip(0, 1), image.mode)
            palette = image.getpalette()
        if palette:
            swapped.putpalette(palette)
        swapped.save(mask)
    found = [search(data, f"{data.name}.safetensors", **OPTIONS)[0] for data in (scenes, tmp_path / "poisoned")]
    assert found[0].metrics != found[1].metrics
    records = [decisions(Path(result.file)) for result in found]
    for record in records:
        del record["request"], record["digest"]
    assert records[0] == records[1] and len(records[0]) == 6
    tensors = [vpt.load(result.file).trainable_state_dict() for result in found]
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def test_search_of_masks_whose_head_alone_diverges_ships_prompts(
    search: Search, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = segmentation.train_model

    def diverge(job: Any, data: Any, callback: Any, device: Any, checkpoint: Path | None = None) -> Any:
        if job.method == "linear" and checkpoint is not None:
            raise vpt.TrainingError("the loss is nan")
        return train(job, data, callback, device, checkpoint)

    monkeypatch.setattr(segmentation, "train_model", diverge)
    result, _ = search(scenes, **OPTIONS)
    assert result.method == "vpt(length=2)" and result.search is not None
    assert result.search["summary"] == "linear: diverged: the loss is nan"


def test_search_of_masks_that_ships_prompts_compares_them_on_test_images(
    search: Search, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, saved = list[int](), list[bool]()

    class Watch(SimulatedClock):
        def on_note(self, text: str) -> None:
            super().on_note(text)
            if "saved to" in text:
                saved.append((tmp_path / "a.safetensors").exists())

    def compare(ours: Any, theirs: Any) -> dict[str, float]:
        compared.append(len(ours))
        return {**compare_masks(ours, theirs), "gain": 0.1, "error": 0.01}

    monkeypatch.setattr(segmentation, "compare_masks", compare)
    result, _ = search(scenes, clock=Watch(0.1, 0.85), **OPTIONS)
    assert result.method == "vpt(length=2)" and result.search is not None
    assert compared == [3, 4] and result.search["summary"].endswith("4 images) on test")
    assert saved == [True]


def test_search_of_masks_ends_a_training_that_is_slower_than_planned(search: Search, scenes: Path) -> None:
    class Slowing(SimulatedClock):
        def on_note(self, text: str) -> None:
            super().on_note(text)
            if text.startswith("linear: "):
                self.step = 10.0

    options = {name: value for name, value in OPTIONS.items() if name != "image"}
    result, clock = search(scenes, minutes=1.5, clock=Slowing(0.1, 1.0), **options)
    assert result.search is not None and clock.now <= 1.1 * 90
    assert [describe_status(row) for row in result.search["candidates"]] == ["tried", "stopped: slower than planned"]
    assert result.search["selected"] == "linear" and "stopped: slower than planned" in result.search["summary"]


def test_one_val_image_convinces_of_nothing() -> None:
    row = {"images": 1, "comparison": {"gain": 0.9, "error": 0.0}}
    assert not segmentation._convinces(row) and segmentation._convinces({**row, "images": 3})


def test_equal_masks_are_called_equal() -> None:
    counts = np.ones((2, 3, 2), np.int64)
    words = describe_masks(compare_masks(counts, counts), "prompts", 2)
    assert words == "prompts have the mean IoU of the head alone (2 images)"


def test_search_of_masks_refuses_a_metric(search: Search, scenes: Path) -> None:
    with pytest.raises(vpt.SpecError, match="segmentation counts miou"):
        search(scenes, metric="top1", **OPTIONS)


def test_compare_masks_of_a_better_model_has_a_gain_above_its_error() -> None:
    rng = np.random.default_rng(0)
    right = rng.integers(80, 120, (12, 2))
    wrong = rng.integers(1, 20, (12, 2))
    theirs = np.stack([np.diag(row) + np.fliplr(np.diag(other)) for row, other in zip(right, 3 * wrong, strict=True)])
    ours = np.stack([np.diag(row) + np.fliplr(np.diag(other)) for row, other in zip(right, wrong, strict=True)])
    found = compare_masks(*(count_pixels([PixelScores(each, 0.0) for each in one]) for one in (ours, theirs)))
    total = [matrix.sum(0) for matrix in (ours, theirs)]
    means = [np.mean(m.diagonal() / (m.sum(0) + m.sum(1) - m.diagonal())) for m in total]
    assert found["gain"] == pytest.approx(means[0] - means[1])
    assert 0 < found["low"] < found["gain"] < found["high"] and found["gain"] > 3 * found["error"]
