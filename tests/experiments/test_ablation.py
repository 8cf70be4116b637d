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

import vpt.experiments.running.worker
import vpt.tuning
from vpt.attention.detection import detect_layout, structural_copy
from vpt.backbones import load_backbone
from vpt.backbones.layout import BackboneLayout
from vpt.cli.ablate import command
from vpt.data.decoding.arrays import decode
from vpt.data.loading import load_dataset
from vpt.errors import SpecError, StorageError, TrainingError, VptError
from vpt.experiments.ablations.report import Ablation
from vpt.experiments.ablations.run import ablate
from vpt.experiments.ablations.series import SERIES, Point, SeriesContext, find_series
from vpt.methods import Linear, parse_method
from vpt.model.load import load
from vpt.tasks.classification import ClassificationConfig
from vpt.training.job import Job

CONTEXT = SeriesContext("vpt(length=5)", classes=4, backbones=("vit_nano_patch12_48", "vit_tiny_patch16_224"), blocks=8,
              size=48, patch=12)  # fmt: skip
SHORT = {"epochs": 1, "batch_size": 8}


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
def set_points(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives a series other points, and leaves pictures of single runs out."""
    monkeypatch.setattr(vpt.tuning, "draw_run", lambda *_: None)
    monkeypatch.setattr(vpt.tuning, "report_run", lambda *_: None)
    return lambda name, *points: monkeypatch.setitem(SERIES, name, replace(SERIES[name], points=lambda context: points))


def run(name: str, images: Path, folder: Path, **options: Any) -> Ablation:
    return ablate(find_series(name), str(images), folder, options={**SHORT, **options.pop("options", {})}, **options)


@cache
def meta_trunk(image_size: int | None) -> tuple[nn.Module, BackboneLayout]:
    backbone = load_backbone("vit_nano_patch12_48", image_size=image_size, device="meta")
    trunk = structural_copy(backbone.module)
    return trunk, detect_layout(trunk, backbone.preprocessing)


@pytest.mark.parametrize("name", SERIES)
def test_series_of_each_name_has_distinct_points_that_fit_a_transformer(name: str) -> None:
    points = list(SERIES[name].points(CONTEXT))
    assert len({(point.curve, point.x) for point in points}) == len(points) > 1
    base = parse_method(CONTEXT.base)
    for point in points:
        point.method_for(base).plan(*meta_trunk(point.job.get("image_size")))
        Job.create("data", Path("out"), ClassificationConfig(), **point.job)


def test_point_method_for_base_keeps_its_other_options() -> None:
    base = parse_method("vpt(length=5, shared=blocks) + bias")
    methods = [str(point.method_for(base)) for point in SERIES["depth"].points(CONTEXT)]
    assert methods[1] == 'vpt(length=5, depth="1-2", shared="blocks") + bias'
    assert methods[5] == 'vpt(length=5, depth="8-8", shared="blocks") + bias'
    with pytest.raises(SpecError, match="no prompts whose length"):
        Point(5, fields={"length": 5}).method_for(parse_method("linear"))


def test_series_context_of_backbone_and_data_sets_the_points() -> None:
    assert replace(CONTEXT, blocks=12).quarters == [1, 3, 6, 9, 12]
    assert replace(CONTEXT, size=224, patch=16).scaled_size(1.5) == 336
    assert replace(CONTEXT, size=100, patch=0).scaled_size(1.25) == 128, "a ConvNet, whose stride is 32"
    assert [point.x for point in SERIES["resolution"].points(CONTEXT)] == [48, 60, 72, 48]
    assert {point.fields["length"] for point in SERIES["init"].points(CONTEXT)} == {4}


def test_ablate_of_a_series_writes_reports_and_reuses_finished_runs(
    images: Path, tmp_path: Path, set_points: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_points(
        "length",
        Point(1, "deep", fields={"length": 1}),
        Point(2, "deep", fields={"length": 2}),
        Point(3, "deep", fields={"length": 3, "location": "add"}),
        Point(2, "other", "linear"),
    )
    found = run("length", images, tmp_path, seeds=2, options={"learning_rate": 0.01})
    assert {"length.png", "results.json", "table.md", "plan.json"} <= {path.name for path in tmp_path.iterdir()}
    assert len(list((tmp_path / "runs").iterdir())) == len(list((tmp_path / "tuned").iterdir())) == 6
    with Image.open(tmp_path / "length.png") as picture:
        assert min(picture.size) > 200
    results = json.loads((tmp_path / "results.json").read_text())
    assert results == found.to_dict()
    one, two, impossible, linear = results["points"]
    assert (one["method"], one["n"], one["seeds"], one["status"]) == ("vpt(length=1)", 2, [0, 1], "done")
    assert [Path(file).is_file() for file in one["files"]] == [True, True]
    assert one["mean"] == pytest.approx(sum(one["top1"]) / 2)
    assert two["trainable_parameters"] - one["trainable_parameters"] == 8 * 128
    assert (impossible["status"], impossible["n"], impossible["mean"]) == ("refused", 0, None)
    assert "leave length out" in impossible["error"]
    assert (one["config"]["learning_rate"], linear["config"]["learning_rate"]) == (0.01, Linear.learning_rate)
    assert results["settings"]["epochs"] == 1
    assert "torch" in results["environments"][0]["versions"]
    table = (tmp_path / "table.md").read_text()
    assert "| refused: vpt(" in table and "± sd of 2 |" in table and "- epochs: 1" in table and "torch" in table

    monkeypatch.setattr(
        vpt.experiments.running.worker, "run_job", lambda *_, **__: pytest.fail("a finished run was done again")
    )
    assert run("length", images, tmp_path, seeds=2, options={"learning_rate": 0.01}).to_dict() == results
    monkeypatch.undo()
    set_points("length", Point(1, "deep", fields={"length": 1}))
    other = run("length", images, tmp_path, seeds=2, options={"learning_rate": 0.02}).to_dict()["points"][0]
    assert other["config"]["learning_rate"] == 0.02 and not set(other["files"]) & set(one["files"])


def test_ablate_with_diverging_run_continues_the_series(
    images: Path, tmp_path: Path, set_points: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tune(job: Job, *arguments: Any, **options: Any) -> Any:
        if job.method.startswith("bias") and job.config.training.seed:
            raise TrainingError("the loss is NaN")
        return real(job, *arguments, **options)

    real = vpt.experiments.running.worker.run_job
    monkeypatch.setattr(vpt.experiments.running.worker, "run_job", tune)
    set_points("combine", Point("bias", method="bias"), Point("linear", method="linear"))
    bias, linear = run("combine", images, tmp_path, seeds=2).rows
    assert "(n = 1) diverged: the loss is NaN" in bias.top1_text
    assert (len(bias.runs), len(linear.runs)) == (1, 2)


def test_ablate_with_equal_points_trains_them_once(
    images: Path, tmp_path: Path, set_points: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tune(job: Job, *arguments: Any, **options: Any) -> Any:
        trained.append((str(parse_method(job.method)), job.config.training.seed))
        return real(job, *arguments, **options)

    real, trained = vpt.experiments.running.worker.run_job, list[tuple[str, int]]()
    monkeypatch.setattr(vpt.experiments.running.worker, "run_job", tune)
    ends = [Point(12, curve, fields={"depth": "1-2"}) for curve in ("from the bottom", "from the top")]
    set_points("depth", Point(1, "from the bottom", fields={"depth": "1-1"}), *ends)
    one, bottom, top = run("depth", images, tmp_path, seeds=2).rows
    assert trained == [(f'vpt(depth="1-{x}")', seed) for x in (1, 2) for seed in (0, 1)]
    assert bottom.runs == top.runs != one.runs and len(top.runs) == 2 and top.status == "done"


def test_ablate_data_series_trains_on_fractions_of_the_images(
    images: Path, tmp_path: Path, set_points: Callable[..., None]
) -> None:
    set_points("data", *(Point(p, "linear", "linear", job={"train_fraction": p / 100}) for p in (10, 50, 100)))
    rows = run("data", images, tmp_path, seeds=1).rows
    assert [row.runs[0].images for row in rows] == [{"train": n, "val": 2, "test": 2} for n in (2, 4, 8)]


def test_ablate_with_failing_run_raises_and_retries_it(
    images: Path, tmp_path: Path, set_points: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tune(*_: Any, **__: Any) -> Any:
        raise StorageError("the disk is full")

    set_points("combine", Point("linear", method="linear"))
    with monkeypatch.context() as patch:
        patch.setattr(vpt.experiments.running.worker, "run_job", tune)
        with pytest.raises(StorageError, match="the disk is full\n1 run ended in an error; the same command"):
            run("combine", images, tmp_path, seeds=1)
    assert "| error: StorageError: the disk is full |" in (tmp_path / "table.md").read_text()
    assert run("combine", images, tmp_path, seeds=1).rows[0].status == "done"


def test_ablate_with_overwrite_repeats_all_runs(images: Path, tmp_path: Path, set_points: Callable[..., None]) -> None:
    set_points("combine", Point("linear", method="linear"))
    run("combine", images, tmp_path, seeds=1)
    (record,) = (tmp_path / "runs").iterdir()
    before = record.stat().st_mtime_ns
    run("combine", images, tmp_path, seeds=1)
    assert record.stat().st_mtime_ns == before
    run("combine", images, tmp_path, seeds=1, overwrite=True)
    assert record.stat().st_mtime_ns > before


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
        (
            "length",
            {"options": {"augment": "flop"}},
            "training.augment: 'flop' is no augmentation; did you mean 'flip'",
        ),
    ],
)
def test_ablate_with_invalid_series_options_is_refused(
    name: str, options: dict[str, Any], reason: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(VptError, match=reason):
        run(name, images, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_ablate_command_with_series_prints_table_and_json(
    images: Path, tmp_path: Path, set_points: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: object) -> str:
        command.main([str(argument) for argument in arguments], standalone_mode=False)
        return capsys.readouterr().out

    listed = call()
    assert [curve.split()[0] for curve in listed.splitlines()] == list(SERIES)
    with pytest.raises(SpecError, match="did you mean 'length'"):
        call("lenght", images)
    set_points("sharing", Point("none", fields={"shared": "none"}), Point("all", fields={"shared": "all"}))
    short = ("--epochs", 1, "--batch-size", 8, "--seeds", 1, "--out", tmp_path)
    text = call("sharing", images, *short, "--method", "vpt(length=3)")
    assert '| all | vpt(length=3, shared="all") |' in text and "sharing.png" in text
    found = json.loads(call("sharing", images, *short, "--method", "vpt(length=3)", "--json"))
    assert [point["x"] for point in found["points"]] == ["none", "all"]
    assert found["settings"]["method"] == "vpt(length=3)"


def test_ablate_resolution_with_image_size_scales_all_points(images: Path, tmp_path: Path) -> None:
    command.main(
        ["resolution", str(images), "--epochs", "1", "--seeds", "1", "--image-size", "24", "--head-lr-scale", "0.5",
         "--out", str(tmp_path)],
        standalone_mode=False,
    )  # fmt: skip
    points = json.loads((tmp_path / "results.json").read_text())["points"]
    assert [point["x"] for point in points] == [24, 36, 24]  # 1.25 x 24 is 30, and no multiple of 12: it goes to 24
    assert {point["config"]["head_lr_scale"] for point in points} == {0.5}


def test_ablate_ensemble_of_runs_equals_their_mean_prediction(images: Path, tmp_path: Path) -> None:
    found = run("ensemble", images, tmp_path, seeds=3, method="vpt(length=2)")
    rows = {(row.point.curve, row.point.x): row for row in found.rows}
    assert list(rows) == [(curve, x) for curve in ("vpt(length=2)", "full") for x in ("each alone", "together")]
    for curve in ("vpt(length=2)", "full"):
        alone, together = rows[curve, "each alone"], rows[curve, "together"]
        assert (len(alone.cell.scores), len(together.cell.scores)) == (3, 1) and together.cell.std is None
        one, three = (row.cell.final_records[0].parameters for row in (alone, together))
        assert three["trainable"] == 3 * one["trainable"]
        assert three["total"] - three["trainable"] == one["total"] - one["trainable"]  # frozen ones count once
        backbone = load_backbone()
        data = load_dataset(str(images), seed=0)
        models = [load(path, backbone) for path in alone.to_dict()["files"]]
        pixels = decode(data.test, models[0].backbone.preprocessing)
        batch = models[0].backbone.preprocessing.normalize(torch.from_numpy(pixels.images))
        with torch.no_grad():
            probabilities = torch.stack([model(batch).softmax(1) for model in models]).mean(0)
        assert together.cell.scores == (float((probabilities.argmax(1).numpy() == data.test.labels).mean()),)
    assert len(list(tmp_path.glob("tuned/*.safetensors"))) == 6  # nothing was trained for the points together
    assert "n" in found.to_dict()["points"][1] and found.to_dict()["points"][1]["n"] == 1


def test_ablate_ensemble_of_one_seed_is_refused(images: Path, tmp_path: Path) -> None:
    found = run("ensemble", images, tmp_path, seeds=1, method="vpt(length=2)")
    reasons = ["", "refused: 1 run makes no ensemble; give seeds 2 or more"] * 2
    assert [row.reason for row in found.rows] == reasons
