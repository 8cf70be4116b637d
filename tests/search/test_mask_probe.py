"""Searches in segmentation that begin with a probe: a linear head on several maps, in closed form."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from simulation import Interrupted, SimulatedClock

import vpt
from helpers.segmentation import write_split
from vpt.backbones import DEFAULT
from vpt.search.segmentation import candidates as mask_candidates
from vpt.search.segmentation import costs as mask_costs
from vpt.search.segmentation import ranking as mask_ranking
from vpt.search.segmentation import search as segmentation
from vpt.search.segmentation.comparison import compare_masks

Search = Callable[..., tuple[vpt.RunResult, SimulatedClock]]
OPTIONS: dict[str, Any] = {"image_size": 48, "batch_size": 2, "image": 0.02}


@pytest.mark.parametrize(("step", "minutes"), [(0.3, 0.5), (5.0, 0.5), (0.3, 0.03)])
def test_search_of_masks_begins_with_a_probe(
    search: Search, scenes: Path, tmp_path: Path, step: float, minutes: float
) -> None:
    result, clock = search(scenes, step=step, minutes=minutes, method="vpt(length=2)", **OPTIONS)
    assert result.search is not None and clock.now <= 1.1 * 60 * minutes
    probe, *others = result.search["candidates"]
    assert probe["head"] == "linear(levels=4)" and probe["lda"] in range(1, 9) and probe["score"] > 0.8
    assert probe["iterations"] == 0 and (probe["lda"] == 8) is (minutes == 0.5)
    assert any(note.startswith("the probe, linear(levels=4): ") and "saved to" in note for note in clock.notes)
    assert [row["status"] == "tried" for row in others[:1]] == [step < 5 and minutes == 0.5]
    assert "the probe" in result.search["summary"]
    repeated = tomllib.loads((tmp_path / "a.run" / "run.toml").read_text(encoding="utf-8"))
    assert repeated["lda"] == probe["lda"] and repeated["head"] == "linear(levels=4)"
    again = vpt.tune(out=tmp_path / "again.safetensors", progress=False, **{
        name: value for name, value in repeated.items() if name != "out"
    })  # fmt: skip
    assert Path(again.file).read_bytes() == Path(result.file).read_bytes()


def test_search_of_masks_tries_the_usual_decoder_too(
    search: Search, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_costs, "_LONG_ENOUGH", 20)
    result, clock = search(scenes, step=0.2, minutes=0.5, method="vpt(length=2)", **OPTIONS)
    assert result.search is not None and clock.now <= 1.1 * 30
    _, prompts, decoder, *others = result.search["candidates"]
    assert [row["status"] for row in (prompts, decoder, *others)] == ["tried"] * 4
    assert decoder["method"] == "vpt(length=2)" and decoder["head"] == "setr_pup" and "lda" not in decoder
    assert "head" not in prompts and prompts["iterations"] == decoder["iterations"] >= 20
    assert [row["factor"] for row in others] == [3, pytest.approx(1 / 3)]


def test_decoder_that_is_slower_gets_fewer_steps_in_as_much_time(
    search: Search, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimulatedClock(0.02, 0.1)

    def slow(train: Any) -> Any:
        def train_slowly(job: Any, *given: Any) -> Any:
            clock.step = 0.4 if str(job.head).startswith("setr_pup") else 0.1
            return train(job, *given)

        return train_slowly

    monkeypatch.setattr(mask_costs, "_LONG_ENOUGH", 20)
    for module in (mask_costs, segmentation):
        monkeypatch.setattr(module, "train_model", slow(module.train_model))
    result, _ = search(scenes, minutes=1.0, method="vpt(length=2)", clock=clock, **OPTIONS)
    assert result.search is not None and clock.now <= 66
    _, prompts, decoder, *others = result.search["candidates"]
    assert [row["status"] for row in (prompts, decoder, *others)] == ["tried"] * 4
    assert decoder["iterations"] == pytest.approx(prompts["iterations"] / 4, abs=1)


def test_search_of_masks_passes_over_masks_without_a_class(search: Search, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes, tmp_path / "void")
    mask = min((tmp_path / "void/masks/train").iterdir())
    with Image.open(mask) as image:
        Image.new("L", image.size, 255).save(mask)
    result, _ = search(tmp_path / "void", minutes=0.5, method="linear", **OPTIONS)
    assert result.search is not None and result.search["candidates"][0]["lda"] == 7 and result.score > 0.8


def test_search_of_masks_from_a_probe_goes_on_to_the_same_file(
    search: Search, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(ours: Any, theirs: Any) -> dict[str, float]:
        return {**compare_masks(ours, theirs), "gain": 0.1, "error": 0.01}

    monkeypatch.setattr(segmentation, "compare_masks", compare)
    options = {**OPTIONS, "method": "vpt(length=2)", "step": 0.3, "minutes": 0.5}
    whole, _ = search(scenes, out="whole.safetensors", **options)
    with pytest.raises(KeyboardInterrupt):
        search(scenes, clock=Interrupted(0.02, 0.3, 7), **options)
    assert (tmp_path / "a.safetensors").exists()  # the probe, which was saved at once
    resumed, _ = search(scenes, **options)
    assert resumed.method == "vpt(length=2)" and resumed.search is not None
    assert resumed.search["summary"].startswith("prompts beat the probe by 10.0 points")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert resumed.metrics == whole.metrics


def test_search_of_masks_ranks_backbones_by_their_probes(
    search: Search, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = mask_candidates.load_backbone

    def load_either(name: str, **options: Any) -> Any:
        backbone = load(DEFAULT if name == "blind" else name, **options)
        if name == "blind" and options.get("device") != "meta":
            for weight in backbone.module.parameters():
                torch.nn.init.zeros_(weight.data)
        return backbone

    for module in ("vpt.search.segmentation.candidates", "vpt.tasks.segmentation.task"):
        monkeypatch.setattr(f"{module}.load_backbone", load_either)
    result, clock = search(scenes, backbone=f"blind,{DEFAULT}", minutes=0.5, step=0.3, method="linear", **OPTIONS)
    assert result.search is not None and clock.now <= 33 and result.backbone == DEFAULT
    ranking = result.search["backbones"]
    assert ranking["selected"] == DEFAULT and ranking["margin"]["gain"] > 0.2
    assert [row["backbone"] for row in ranking["candidates"]] == ["blind", DEFAULT]
    assert any(note == ranking["summary"] and "above blind on 3 images of val" in note for note in clock.notes)
    lines = (tmp_path / "a.run" / "decisions.jsonl").read_text().splitlines()
    assert "backbone" in {json.loads(line)["decision"] for line in lines}
    monkeypatch.setattr(mask_ranking, "FEWEST_IMAGES", 4)
    result, _ = search(scenes, "b.safetensors", backbone=f"{DEFAULT},blind", minutes=0.5, method="linear",
                       **OPTIONS)  # fmt: skip
    assert result.search is not None and result.search["backbones"]["margin"] is None
    assert "the first: 3 images of val rank no backbones" in result.search["backbones"]["summary"]


SIZED: dict[str, Any] = {"batch_size": 2, "image": 0.02, "step": 0.3, "method": "linear"}


def favor(monkeypatch: pytest.MonkeyPatch, *gains: float) -> None:
    """Let the gains of larger sizes be known, in their order."""
    left = list(gains)

    def compare(ours: Any, theirs: Any) -> dict[str, float]:
        return {**compare_masks(ours, theirs), "gain": left.pop(0), "error": 0.01}

    monkeypatch.setattr(mask_ranking, "compare_masks", compare)


def test_search_of_masks_chooses_larger_images_where_their_probe_is_above(
    search: Search, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    favor(monkeypatch, 0.1, 0.05)
    result, clock = search(scenes, minutes=0.5, **SIZED)
    assert result.search is not None and clock.now <= 33
    ranking = result.search["image_sizes"]
    assert [row["image_size"] for row in ranking["candidates"]] == [48, 72, 96] and ranking["selected"] == 72
    assert all(row["score"] > 0.8 and row["images"] == 3 for row in ranking["candidates"])
    assert ranking["summary"] in clock.notes and "10.0 points" in ranking["summary"]
    assert "above 48 px on 3 images of val" in ranking["summary"] and "(--image-size 48 keeps" in ranking["summary"]
    assert vpt.load(result.file).backbone.preprocessing.size == 72
    repeated = tomllib.loads((tmp_path / "a.run" / "run.toml").read_text(encoding="utf-8"))
    assert repeated["image_size"] == 72
    again = vpt.tune(**{**repeated, "out": tmp_path / "again.safetensors"}, progress=False)
    assert Path(again.file).read_bytes() == Path(result.file).read_bytes()


@pytest.mark.parametrize(("gains", "chosen"), [((0.005, 0.009), 48), ((-0.1, -0.2), 48), ((0.02, 0.03), 96)])
def test_search_of_masks_keeps_the_size_of_the_backbone_without_a_certain_gain(
    search: Search, scenes: Path, monkeypatch: pytest.MonkeyPatch, gains: tuple[float, float], chosen: int
) -> None:
    favor(monkeypatch, *gains)
    result, _ = search(scenes, minutes=0.5, **SIZED)
    assert result.search is not None and result.search["image_sizes"]["selected"] == chosen
    is_kept = "not above that by more than the error on 3 images" in result.search["image_sizes"]["summary"]
    assert is_kept is (chosen == 48) and vpt.load(result.file).backbone.preprocessing.size == chosen


def test_search_of_masks_whose_larger_images_do_not_fit_keeps_the_own_size(
    search: Search, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = mask_ranking.train_model

    def fail(job: Any, *given: Any) -> Any:
        if job.image_size == limit:
            raise MemoryError
        return train(job, *given)

    monkeypatch.setattr(mask_ranking, "train_model", fail)
    for limit, sizes in ((96, [48, 72]), (72, None)):
        result, _ = search(scenes, f"{limit}.safetensors", minutes=0.5, **SIZED)
        assert result.search is not None
        ranking = result.search["image_sizes"]
        assert (None if ranking is None else [row["image_size"] for row in ranking["candidates"]]) == sizes


@pytest.mark.parametrize(("image", "sizes"), [(0.15, [48, 72]), (0.5, None)])
def test_search_of_masks_tries_sizes_where_time_allows(
    search: Search, scenes: Path, image: float, sizes: list[int] | None
) -> None:
    result, clock = search(scenes, minutes=0.5, **{**SIZED, "image": image})
    assert result.search is not None and clock.now <= 33
    ranking = result.search["image_sizes"]
    assert (None if ranking is None else [row["image_size"] for row in ranking["candidates"]]) == sizes
    assert "image size" in decided(Path(result.file))
    if ranking is not None:
        own, larger = (row["score"] for row in ranking["candidates"])
        assert ranking["margin"]["gain"] == pytest.approx(larger - own)


def decided(file: Path) -> list[str]:
    lines = file.with_suffix(".run").joinpath("decisions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["decision"] for line in lines]


def test_search_of_masks_interrupted_keeps_its_image_size(
    search: Search, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    favor(monkeypatch, 0.1, 0.05, 0.1, 0.05)
    options = {**SIZED, "method": "vpt(length=2)", "minutes": 0.5}
    search(scenes, out="whole.safetensors", **options)
    with pytest.raises(KeyboardInterrupt):
        search(scenes, clock=Interrupted(0.02, 0.3, 7), **options)
    favor(monkeypatch)
    resumed, _ = search(scenes, **options)
    assert resumed.search is not None and resumed.search["image_sizes"]["selected"] == 72
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_search_of_masks_with_many_images_of_val_chooses_by_some_of_them(search: Search, tmp_path: Path) -> None:
    for split, count in (("train", 8), ("val", 30), ("test", 4)):
        write_split(tmp_path / "many/images" / split, tmp_path / "many/masks" / split, count, first_id=0)
    result, clock = search(tmp_path / "many", minutes=0.5, **{**OPTIONS, "image": 0.11}, method="linear")
    assert result.search is not None and result.search["candidates"][0]["images"] == 10 and clock.now <= 33
    assert "10 of 30 images of val choose; a larger --minutes takes all" in clock.notes
