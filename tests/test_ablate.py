"""Series of ablations: the table, the running of it, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vpt.experiments.ablation
import vpt.tuning
from vpt.attention.detection import survey, trunk_of
from vpt.backbones import load_backbone, skeleton
from vpt.backbones.layout import Sites
from vpt.cli.ablate import command
from vpt.data.images import decode
from vpt.data.loading import read
from vpt.errors import SpecError, TrainingError, VptError
from vpt.experiments.ablation import Ablation, ablate
from vpt.experiments.ablation_series import SERIES, Known, Point, find
from vpt.methods import Linear, parse_method
from vpt.model.tuned_file import load
from vpt.training import Recipe
from vpt.training.job import Job

KNOWN = Known("vpt(length=5)", classes=4, backbones=("vit_nano_patch12_48", "vit_tiny_patch16_224"), blocks=8,
              size=48, patch=12)  # fmt: skip
FEW = {"epochs": 1, "batch_size": 8}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and light noise: six images of each."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, floor in (("dark", 0), ("light", 120)):
        (root / name).mkdir()
        for i in range(6):
            Image.fromarray(rng.integers(floor, floor + 130, (12, 12, 3), dtype=np.uint8)).save(
                root / name / f"{i}.png"
            )
    return root


@pytest.fixture
def shortened(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives a series other points, and leaves pictures of single runs out."""
    monkeypatch.setattr(vpt.tuning.figures, "confusion", lambda *_: None)
    monkeypatch.setattr(vpt.tuning.figures, "curve", lambda *_: None)
    return lambda name, *points: monkeypatch.setitem(SERIES, name, replace(SERIES[name], points=lambda known: points))


def run(name: str, images: Path, folder: Path, **options: Any) -> Ablation:
    return ablate(find(name), str(images), folder, choices={**FEW, **options.pop("choices", {})}, **options)


@cache
def bare(image_size: int | None) -> tuple[nn.Module, Sites]:
    backbone = skeleton("vit_nano_patch12_48", image_size)
    trunk = trunk_of(backbone.module)
    return trunk, survey(trunk, backbone.preprocessing)


@pytest.mark.parametrize("name", SERIES)
def test_points_are_distinct_and_fit_a_plain_transformer(name: str) -> None:
    points = list(SERIES[name].points(KNOWN))
    assert len({(point.line, point.x) for point in points}) == len(points) > 1
    base = parse_method(KNOWN.base)
    for point in points:
        point.of(base).plan(*bare(point.job.get("image_size")))
        Job("data", Path("out"), Recipe(), **point.job)


def test_the_base_keeps_what_is_not_varied() -> None:
    base = parse_method("vpt(length=5, share=blocks) + bias")
    methods = [str(point.of(base)) for point in SERIES["depth"].points(KNOWN)]
    assert methods[1] == 'vpt(length=5, depth="1-2", share="blocks") + bias'
    assert methods[5] == 'vpt(length=5, depth="8-8", share="blocks") + bias'
    with pytest.raises(SpecError, match="no prompts whose length"):
        Point(5, fields={"length": 5}).of(parse_method("linear"))


def test_what_is_known_of_the_backbone_and_the_data() -> None:
    assert replace(KNOWN, blocks=12).quarters == [1, 3, 6, 9, 12]
    assert replace(KNOWN, size=224, patch=16).enlarged(1.5) == 336
    assert [point.x for point in SERIES["resolution"].points(KNOWN)] == [48, 60, 72, 48]
    assert {point.fields["length"] for point in SERIES["init"].points(KNOWN)} == {4}


def test_a_series_leaves_a_table_a_picture_and_figures_and_is_only_read_again(
    images: Path, tmp_path: Path, shortened: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shortened(
        "length",
        Point(1, "deep", fields={"length": 1}),
        Point(2, "deep", fields={"length": 2}),
        Point(3, "deep", fields={"length": 3, "location": "add"}),
        Point(2, "other", "linear"),
    )
    found = run("length", images, tmp_path, seeds=2, choices={"learning_rate": 0.01})
    assert {"length.png", "results.json", "table.md", "deep_1-0.run", "other_2-1.safetensors"} <= {
        path.name for path in tmp_path.iterdir()
    }
    with Image.open(tmp_path / "length.png") as picture:
        assert min(picture.size) > 200
    results = json.loads((tmp_path / "results.json").read_text())
    assert results == found.as_dict()
    one, two, impossible, linear = results["points"]
    assert (one["method"], one["n"], one["seeds"], one["status"]) == ("vpt(length=1)", 2, [0, 1], "done")
    assert one["mean"] == pytest.approx(sum(one["top1"]) / 2)
    assert two["trained_parameters"] - one["trained_parameters"] == 8 * 128
    assert (impossible["status"], impossible["n"], impossible["mean"]) == ("refused", 0, None)
    assert "leave length out" in impossible["trouble"]
    assert (one["recipe"]["learning_rate"], linear["recipe"]["learning_rate"]) == (0.01, Linear.learning_rate)
    assert results["settings"]["epochs"] == 1
    assert "torch" in results["machines"][0]["versions"]
    table = (tmp_path / "table.md").read_text()
    assert "| refused: vpt(" in table and "± sd of 2 |" in table and "- epochs: 1" in table and "torch" in table

    monkeypatch.setattr(vpt.tuning, "train", lambda *_, **__: pytest.fail("a finished run was done again"))
    assert run("length", images, tmp_path, seeds=2, choices={"learning_rate": 0.01}).as_dict() == results
    with pytest.raises(SpecError, match=r"learning_rate: 0\.01 then"):
        run("length", images, tmp_path, seeds=2, choices={"learning_rate": 0.02})


def test_a_run_that_diverges_does_not_end_the_series(
    images: Path, tmp_path: Path, shortened: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tune(job: Job, *_: Any, **__: Any) -> Any:
        if job.method == "bias" and job.recipe.seed:
            raise TrainingError("the loss is NaN")
        return real(job)

    real = vpt.experiments.ablation.tune
    monkeypatch.setattr(vpt.experiments.ablation, "tune", tune)
    shortened("combine", Point("bias", method="bias"), Point("linear", method="linear"))
    bias, linear = run("combine", images, tmp_path, seeds=2).rows
    assert "(n = 1) diverged: the loss is NaN" in bias.figure
    assert (len(bias.runs), len(linear.runs)) == (1, 2)


def test_points_that_are_the_same_are_trained_once(
    images: Path, tmp_path: Path, shortened: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tune(job: Job, *_: Any, **__: Any) -> Any:
        trained.append(job.out.stem)
        return real(job)

    real, trained = vpt.experiments.ablation.tune, list[str]()
    monkeypatch.setattr(vpt.experiments.ablation, "tune", tune)
    ends = [Point(12, line, fields={"depth": "1-2"}) for line in ("from the bottom", "from the top")]
    shortened("depth", Point(1, "from the bottom", fields={"depth": "1-1"}), *ends)
    one, bottom, top = run("depth", images, tmp_path, seeds=2).rows
    assert trained == [f"from_the_bottom_{x}-{seed}" for x in (1, 12) for seed in (0, 1)]
    assert bottom.runs == top.runs != one.runs and len(top.runs) == 2 and not top.trouble


def test_data_scale_trains_on_a_part_of_the_same_images(
    images: Path, tmp_path: Path, shortened: Callable[..., None]
) -> None:
    shortened("data", *(Point(p, "linear", "linear", job={"train_fraction": p / 100}) for p in (10, 50, 100)))
    rows = run("data", images, tmp_path, seeds=1).rows
    assert [row.runs[0].images for row in rows] == [{"train": n, "val": 2, "test": 2} for n in (2, 4, 8)]


def test_a_run_from_before_an_option_was_there_is_still_the_same_run(
    images: Path, tmp_path: Path, shortened: Callable[..., None]
) -> None:
    shortened("combine", Point("linear", method="linear"))
    run("combine", images, tmp_path, seeds=1)
    path = tmp_path / "linear-0.run" / "job.json"
    claim = json.loads(path.read_text())
    del claim["job"]["train_fraction"]
    path.write_text(json.dumps(claim))
    assert run("combine", images, tmp_path, seeds=1).rows[0].runs[0].job["train_fraction"] == 1


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("length", {"method": "linear"}, "no point of the series length can be run"),
        ("length", {"backbones": ("vit_nano_patch12_48", "resnet18")}, "any other takes one"),
        ("backbone", {}, "two or more"),
        (
            "backbone",
            {"backbones": ("resnet18", "resnet34"), "options": {"weights": "a.pth"}},
            "belong to one backbone",
        ),
    ],
)
def test_what_makes_no_series(name: str, options: dict[str, Any], reason: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(VptError, match=reason):
        run(name, images, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_the_command(
    images: Path, tmp_path: Path, shortened: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: object) -> str:
        command.main([str(argument) for argument in arguments], standalone_mode=False)
        return capsys.readouterr().out

    listed = call()
    assert [line.split()[0] for line in listed.splitlines()] == list(SERIES)
    with pytest.raises(SpecError, match="did you mean 'length'"):
        call("lenght", images)
    shortened("share", Point("none", fields={"share": "none"}), Point("all", fields={"share": "all"}))
    few = ("--epochs", 1, "--batch-size", 8, "--seeds", 1, "--out", tmp_path)
    text = call("share", images, *few, "--method", "vpt(length=3)")
    assert '| all | vpt(length=3, share="all") |' in text and "share.png" in text
    found = json.loads(call("share", images, *few, "--method", "vpt(length=3)", "--json"))
    assert [point["x"] for point in found["points"]] == ["none", "all"]
    assert found["settings"]["method"] == "vpt(length=3)"


def test_smaller_images_hold_for_the_whole_series(images: Path, tmp_path: Path) -> None:
    command.main(
        ["resolution", str(images), "--epochs", "1", "--seeds", "1", "--image-size", "24", "--head-rate", "0.5",
         "--out", str(tmp_path)],
        standalone_mode=False,
    )  # fmt: skip
    points = json.loads((tmp_path / "results.json").read_text())["points"]
    assert [point["x"] for point in points] == [24, 36, 24]  # 1.25 x 24 is 30, and no multiple of 12: it goes to 24
    assert {point["recipe"]["head_rate"] for point in points} == {0.5}


def test_together_the_runs_of_another_point_answer_as_one(images: Path, tmp_path: Path) -> None:
    found = run("ensemble", images, tmp_path, seeds=3, method="vpt(length=2)")
    rows = {(row.point.line, row.point.x): row for row in found.rows}
    assert list(rows) == [(line, x) for line in ("vpt(length=2)", "full") for x in ("each alone", "together")]
    for line in ("vpt(length=2)", "full"):
        alone, together = rows[line, "each alone"], rows[line, "together"]
        assert (len(alone.top1), len(together.top1)) == (3, 1) and together.spread is None
        backbone = load_backbone()
        data = read(str(images), seed=0)
        models = [load(job.out, backbone) for job in alone.jobs]
        pixels = decode(data.test, models[0].backbone.preprocessing)
        batch = models[0].backbone.preprocessing.normalise(torch.from_numpy(pixels.images))
        with torch.no_grad():
            shares = torch.stack([model(batch).softmax(1) for model in models]).mean(0)
        assert together.top1 == [float((shares.argmax(1).numpy() == data.test.labels).mean())]
    assert len(list(tmp_path.glob("*.safetensors"))) == 6  # nothing was trained for the points together
    assert "n" in found.as_dict()["points"][1] and found.as_dict()["points"][1]["n"] == 1


def test_one_seed_makes_no_ensemble(images: Path, tmp_path: Path) -> None:
    found = run("ensemble", images, tmp_path, seeds=1, method="vpt(length=2)")
    assert [row.trouble for row in found.rows] == ["", "refused: 1 runs make no ensemble; more seeds do"] * 2
