"""Searches in classification: the budget, the order of stages, the choice, and its record."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from simulation import Interrupted, SimulatedClock, write_images

import vpt
from helpers.command_line import vpt as command
from vpt.backbones import load_backbone
from vpt.errors import SpecError
from vpt.search import wants_search
from vpt.search.comparison import Comparison
from vpt.search.request import SearchRequest
from vpt.tasks.search_rows import describe_status

Search = Callable[..., tuple[vpt.RunResult, SimulatedClock]]
PROMPTS = "vpt(length=4)"


def decisions(out: str | Path) -> dict[str, Any]:
    lines = Path(out).with_suffix(".run").joinpath("decisions.jsonl").read_text().splitlines()
    return {line["decision"]: line["value"] for line in map(json.loads, lines)}


@pytest.fixture
def convinced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate is to replace the probe."""
    monkeypatch.setattr(Comparison, "convinces", property(lambda self: True))


@pytest.mark.usefixtures("few_steps")
def test_search_saves_the_probe_before_anything_is_trained(search: Search, tmp_path: Path) -> None:
    class Watch(SimulatedClock):
        saved: tuple[bool, int, str] | None = None

        def on_note(self, text: str) -> None:
            super().on_note(text)
            if "saved to" in text:
                self.saved = (tmp_path / "a.safetensors").exists(), self.steps, text

    clock = Watch(0.01, 1.0)
    result, _ = search(clock=clock, method=PROMPTS)
    assert clock.saved is not None and clock.saved[:2] == (True, 0)
    assert re.search(r"the probe, .*: \d+\.\d % top-1 out of fold \(95 % interval .*, 60 images\)", clock.saved[2])
    assert clock.steps > 0 and result.search is not None
    assert clock.notes[0].startswith("1 minute on the CPU for the best model (--minutes;")
    assert "is for trying" in clock.notes[0] and clock.notes[0].count("Apache-2.0") == 2


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    ("image", "step", "minutes"),
    [(0.01, 1.0, 1.0), (0.05, 0.5, 0.75), (0.5, 2.0, 1.0), (1.0, 10.0, 1.0), (0.2, 3.0, 3.0)],
)
def test_search_on_machines_of_any_speed_ends_within_the_budget(
    search: Search, image: float, step: float, minutes: float
) -> None:
    result, clock = search(image=image, step=step, minutes=minutes)
    assert result.search is not None
    assert clock.now <= 1.1 * 60 * minutes
    assert Path(result.file).exists()
    tried = [row for row in result.search["candidates"] if row["method"] != "linear" and row["status"] == "tried"]
    assert bool(tried) == (step < 2 or minutes > 1)


def test_search_of_a_slow_machine_takes_a_sample_and_says_so(search: Search) -> None:
    result, clock = search(image=1.0, step=10.0)
    sample = decisions(result.file)["sample"]
    assert sample["train"] < 1 and sample["test"] < 1
    assert result.images["train"] < 48 and result.images["test"] < 30
    assert any("decoding and one pass over 60 training images take 2 min 0 s" in note for note in clock.notes)
    assert result.job["train_fraction"] == sample["train"]


def test_search_among_many_classes_takes_two_images_of_each_and_ends_in_time(search: Search, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(300):  # 6 of each class, and 60 more of one
        folder = tmp_path / "many" / f"class-{index % 40 if index < 240 else 0}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    result, clock = search(tmp_path / "many", method="linear", image=0.25)
    assert clock.now <= 1.1 * 60
    assert result.images["train"] == 80 and 10 <= result.images["test"] < 40
    assert result.search is not None and result.search["candidates"][0]["images"] == 80


def test_search_with_one_image_of_each_class_fixes_the_penalty_and_says_so(search: Search) -> None:
    result, clock = search(images_per_class=1)
    assert result.search is not None
    assert {row["method"] for row in result.search["candidates"]} == {"linear"}
    assert {row["penalty"] for row in result.search["candidates"]} == {0.1}
    assert any(note.startswith("each class has one training image, so none can be left out") for note in clock.notes)
    assert not any("out of fold (95 %" in note for note in clock.notes)
    assert result.search["summary"].startswith("each class has one training image, so nothing can be compared")
    assert result.metrics["test_top1"] > 0.5


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(("option", "value"), [("layer_decay", 0.9), ("block_rates", "1-2=0")])
def test_option_that_a_candidate_cannot_take_leaves_it_out_with_the_reason(
    search: Search, option: str, value: Any
) -> None:
    result, _ = search(**{option: value})
    assert result.search is not None
    status = {row["method"]: describe_status(row) for row in result.search["candidates"] if row["method"] != "linear"}
    assert status["vpt(length=50)"].startswith("skipped: ") and option in status["vpt(length=50)"]
    assert not status["full"].startswith("skipped: ")  # full fine-tuning takes it
    with pytest.raises(SpecError, match=option):
        search(out="named.safetensors", method=PROMPTS, **{option: value})


def test_candidates_whose_file_is_too_large_stand_in_the_table(search: Search) -> None:
    result, _ = search(max_size=4.0)
    assert result.search is not None
    (status,) = [describe_status(row) for row in result.search["candidates"] if row["method"] == "full"]
    assert status == "skipped: its file has 6.6 MB, above --max-size 4"


@pytest.mark.usefixtures("few_steps", "convinced")
def test_search_with_other_test_images_decides_the_same(search: Search, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images / "train", tmp_path / "poisoned" / "train")
    write_images(tmp_path / "poisoned" / "test", 30, seed=7)
    folders = [tmp_path / "poisoned" / "test" / name for name in ("dark", "gray", "light")]
    for source, target in zip(folders, [*folders[1:], folders[0]], strict=True):
        source.rename(target.with_name(f"new-{target.name}"))
    for folder in folders:
        folder.with_name(f"new-{folder.name}").rename(folder)
    found = [
        search(data, f"{data.name}.safetensors", step=2.0, minutes=2.0)[0] for data in (images, tmp_path / "poisoned")
    ]
    assert found[0].metrics != found[1].metrics
    records = [decisions(result.file) for result in found]
    for record in records:
        del record["request"], record["digest"], record["saved"]
    assert records[0] == records[1]
    assert {"probe", "sample", "selected"} < records[0].keys() and len(records[0]) > 6
    assert tensors(Path(found[0].file)) == tensors(Path(found[1].file))


@pytest.mark.usefixtures("few_steps", "convinced")
def test_search_ships_a_candidate_and_its_command_repeats_it(search: Search, tmp_path: Path) -> None:
    result, _ = search(method=PROMPTS)
    assert result.method == PROMPTS and result.search is not None
    assert result.search["selected"] == PROMPTS and "the probe" in result.search["summary"]
    assert result.search["comparison_split"] == "test"
    assert result.search["comparison"]["images"] == result.images["test"]
    assert (tmp_path / "a.run" / "search.png").exists()
    assert result.search["repeat_command"].endswith(
        f"--config {tmp_path / 'a.run' / 'run.toml'} --out again.safetensors"
    )
    command("tune", "--config", tmp_path / "a.run" / "run.toml", "--out", tmp_path / "again.safetensors")
    again = json.loads((tmp_path / "again.run" / "result.json").read_text())
    assert again["search"] is None and again["metrics"] == result.metrics
    assert tensors(tmp_path / "again.safetensors") == tensors(tmp_path / "a.safetensors")


def test_search_that_keeps_the_probe_is_repeated_by_its_command(search: Search, tmp_path: Path) -> None:
    result, clock = search(method="linear")
    assert result.method == "linear" and clock.steps == 0 and result.search is not None
    assert result.search["summary"].endswith("the probe was kept")
    assert all(row["method"] == "linear" for row in result.search["candidates"])
    command("tune", "--config", tmp_path / "a.run" / "run.toml", "--out", tmp_path / "again.safetensors")
    assert tensors(tmp_path / "again.safetensors") == tensors(tmp_path / "a.safetensors")


@pytest.mark.usefixtures("few_steps", "convinced")
@pytest.mark.parametrize(
    "options", [{"method": "linear"}, {"method": PROMPTS}, {"method": PROMPTS, "images_per_class": 12}]
)
def test_search_finished_is_read_by_its_own_file_of_settings(
    search: Search, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    shutil.copytree(images, tmp_path / "data")
    result, _ = search(tmp_path / "data", **options)
    for image in (tmp_path / "data").rglob("*.png"):
        os.utime(image, (1, 1))  # the same images, written at another time
    assert search(tmp_path / "data", **options)[0] == result
    command("tune", "--config", tmp_path / "a.run" / "run.toml", "--json")
    assert json.loads(capsys.readouterr().out)["metrics"] == result.metrics


def tensors(path: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    return {name: tensor.tobytes() for name, tensor in load_file(path).items()}


@pytest.mark.usefixtures("few_steps", "convinced")
@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_search_interrupted_in_training_goes_on_to_the_same_file(search: Search, epochs: int, tmp_path: Path) -> None:
    whole, _ = search(out="whole.safetensors", method=PROMPTS)
    with pytest.raises(KeyboardInterrupt):
        search(method=PROMPTS, clock=Interrupted(0.01, 1.0, epochs))
    before = decisions(tmp_path / "a.safetensors")
    assert vpt.predict(tmp_path / "a.safetensors", write_one(tmp_path)).label in ("dark", "gray", "light")
    resumed, _ = search(method=PROMPTS)
    after = decisions(tmp_path / "a.safetensors")
    assert before.items() <= after.items()
    assert resumed.metrics == whole.metrics
    assert tensors(tmp_path / "a.safetensors") == tensors(tmp_path / "whole.safetensors")


def write_one(folder: Path) -> Path:
    write_images(folder / "one", 1)
    return folder / "one" / "dark" / "000.png"


def test_search_among_backbones_ranks_frozen_probes(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("vit_nano_patch12_48", "test_vit.r160_in1k")

    def load(name: str, **options: Any) -> Any:
        if name == names[0]:
            return load_backbone(name)
        torch.manual_seed(0)
        return replace(load_backbone(timm.create_model("test_vit", num_classes=0, img_size=48)), name=name)

    monkeypatch.setattr("vpt.tasks.classification.task.load_backbone", load)
    result, clock = search(method="linear", backbone=", ".join(names), minutes=2.0)
    assert result.search is not None
    ranking = result.search["backbones"]
    scores = {row["backbone"]: row["score"] for row in ranking["candidates"]}
    assert list(scores) == list(names) and clock.steps == 0
    assert ranking["selected"] == result.backbone == max(names, key=lambda name: scores[name])
    assert ranking["margin"]["gain"] == pytest.approx(abs(scores[names[0]] - scores[names[1]]))
    assert any(note.startswith(f"backbone {result.backbone}: its frozen probe has") for note in clock.notes)


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy"])
def test_search_by_another_metric_reports_it_first(search: Search, metric: str) -> None:
    result, _ = search(method="linear", metric=metric, max_size=0.01)
    heads = {row["head"]: describe_status(row) for row in decisions(result.file)["probe"]["candidates"]}
    assert heads["linear"] == "tried" and heads['multi_block(blocks="all")'] == "skipped: its file has 24.6 kB"
    assert result.metric == f"test_{metric}" and result.search is not None
    assert result.search["score"] == result.score
    assert result.search["interval"][0] <= result.score <= result.search["interval"][1]


def test_search_without_enough_images_for_test_is_marked_optimistic(search: Search, tmp_path: Path) -> None:
    write_images(tmp_path / "tiny", 6)
    result, _ = search(tmp_path / "tiny", method="linear")
    assert result.search is not None and result.search["optimistic"]
    assert result.eval_split == "out_of_fold" and result.images["out_of_fold"] == 6
    assert result.metric == "out_of_fold_top1"


def test_search_finished_is_read_and_other_requests_are_refused(search: Search, tmp_path: Path) -> None:
    result, _ = search(method="linear")
    again, clock = search(method="linear")
    assert again == result and clock.notes[-1].endswith("--overwrite does it again")
    same = {"val_fraction": 0.2, "skip_corrupt": False, "workers": 2}  # as the command line gives them, or no result
    assert search(method="linear", **same)[0] == result
    with pytest.raises(vpt.SpecError, match=r"options.given.ridge: None then, none now"):
        search(method="linear", ridge="none")
    with pytest.raises(vpt.SpecError, match=r"holds a search with other settings \(minutes: 1.0 then, 2.0 now\)"):
        search(method="linear", minutes=2.0)
    search(method="linear", minutes=2.0, overwrite=True)
    (tmp_path / "b.run").mkdir()
    (tmp_path / "b.run" / "job.json").write_text("{}")
    with pytest.raises(vpt.SpecError, match="holds a run of fixed length, and no search"):
        search(out="b.safetensors", method="linear")


def test_search_after_images_have_changed_is_refused(search: Search, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "data")
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "data", method=PROMPTS, minutes=20.0, step=0.1, clock=Interrupted(0.01, 0.1, 1))
    write_images(tmp_path / "data" / "train", 3, seed=5)
    with pytest.raises(vpt.DataError, match="have changed since"):
        search(tmp_path / "data", method=PROMPTS, minutes=20.0)


def test_wants_search_depends_on_what_is_given() -> None:
    assert wants_search(None, {"epochs": None, "method": "vpt"}) and wants_search(3, {})
    assert wants_search(None, {"ridge": "none"}) and wants_search(3, {"ridge": "default"})
    requests = [SearchRequest.create("digits", None, device=torch.device("cpu"), **options) for options in
                ({}, {"ridge": "default"})]  # fmt: skip
    recipe = {"head": "multi_block(blocks=last2)", "ridge": "auto"}
    default, named = (request.job("vit_nano_patch12_48", "vpt", epochs=3, **recipe) for request in requests)
    assert default == named and default.options.ridge == "auto"  # type: ignore[attr-defined]
    assert [
        SearchRequest.create("digits", None, device=torch.device(name)).minutes for name in ("cpu", "cuda", "mps")
    ] == [10, 5, 5]
    for name in ("epochs", "iterations", "learning_rate", "ridge"):
        assert not wants_search(None, {name: 3})
        with pytest.raises(vpt.SpecError, match=f"minutes is 3 and {name} is 3"):
            wants_search(3, {name: 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 0}, "minutes is 0; it must be above 0"),
        ({"max_size": -1}, "max_size is -1 MB; it must be above 0"),
        ({"metric": "macrof1"}, "metric is 'macrof1'; did you mean 'macro_f1'"),
        ({"backbone": "a, b", "weights": "w.pth"}, "weights belong to one backbone, and 2 are given"),
        ({"method": "vtp"}, "vtp"),
        ({"backbone": "vit_nano_patch12_48,"}, "backbone is 'vit_nano_patch12_48,', with a comma beside which"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd', and a search itself finds how to train"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"train_on": "trainval"}, "train_on is 'trainval', and a search itself decides which images train"),
    ],
)
def test_search_with_options_out_of_range_is_refused(search: Search, options: dict[str, Any], message: str) -> None:
    with pytest.raises(vpt.SpecError, match=message):
        search(**options)
