"""Segmentation from folder to figures, on a miniature ADE20K of the real layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vpt
from helpers.segmentation import new_model, write_split
from vpt import inspect, load
from vpt.cli import main
from vpt.errors import ExitCode, SpecError, UnsupportedError
from vpt.methods import parse_method
from vpt.tasks.segmentation import SegmentationConfig, SegmentationObjective
from vpt.tasks.segmentation.sliding_window import InferenceConfig, predict_classes
from vpt.training import Callback, EpochMetrics, fit
from vpt.training.job import Job
from vpt.tuning import make_job

SMALL = ["--image-size", "48", "--batch-size", "2", "--iterations", "4", "--eval-every", "2", "--head", "linear"]


@pytest.fixture(scope="module")
def tuned(ade20k: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "ade.safetensors"
    run_main("tune", ade20k, "--out", out, "--method", "vpt(length=2)", *SMALL)
    return out


def run_main(*args: object) -> None:
    """`main` returns where a command succeeds."""
    main([str(arg) for arg in args])


def test_tune_segmentation_with_classification_head_is_refused(
    ade20k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["tune", str(ade20k), "--out", str(tmp_path / "x.safetensors"), "--head", "multi_block(blocks=last4)"])
    assert left.value.code == ExitCode.USAGE
    assert "'multi_block' is no head of segmentation; known: fpn, linear, setr_pup" in capsys.readouterr().err


def test_segmentation_commands_on_ade20k_tune_eval_and_predict(ade20k, tuned, tmp_path, capsys):
    result = json.loads((tuned.with_suffix(".run") / "result.json").read_text())
    assert result["status"] == "done" and result["eval_split"] == "val" and len(result["per_class"]) == 150
    assert [epoch["epoch"] for epoch in result["history"]] == [1, 2]
    for name in ("curve.png", "confusion.png", "examples.png"):
        with Image.open(tuned.with_suffix(".run") / name) as picture_of_the_run:
            assert min(picture_of_the_run.size) > 300
    header = inspect(tuned)
    assert header.head == "linear"
    assert header.parameter_counts["head"] == result["head_parameters"]
    capsys.readouterr()
    run_main("inspect", tuned)
    assert f"{header.parameter_counts['head']:,}" in capsys.readouterr().out
    run_main("eval", tuned, ade20k, "--split", "val", "--json")
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["miou"] == pytest.approx(result["metrics"]["val_miou"], abs=1e-12)
    run_main("eval", tuned, ade20k, "--split", "val", "--scales", "0.75,1", "--flip", "--json")
    assert json.loads(capsys.readouterr().out)["images"] == 2
    picture = ade20k / "images/validation/scene_0.jpg"
    run_main("predict", tuned, picture, "--out", tmp_path, "--json")
    found = json.loads(capsys.readouterr().out)
    with Image.open(found["mask"]) as mask, Image.open(found["overlay"]) as overlay:
        assert mask.mode == "P" and mask.size == (70, 52) and overlay.width > 70
        ids = np.asarray(mask)
        assert sum(pair["fraction"] for pair in found["classes"]) == pytest.approx(1)
        assert mask.getpalette()[:6] == [120, 120, 120, 180, 120, 120]
    model = load(tuned)
    pixels = torch.from_numpy(np.asarray(Image.open(picture).convert("RGB")).transpose(2, 0, 1).copy())
    assert np.array_equal(predict_classes(model, pixels, InferenceConfig()).numpy(), ids)


def test_predict_of_image_in_memory_returns_mask_and_writes_on_request(
    tuned: Path, ade20k: Path, tmp_path: Path
) -> None:
    picture = next(iter(sorted((ade20k / "images/validation").glob("*.jpg"))))
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    found = vpt.predict(tuned, pixels)
    assert found.mask is not None and found.mask.shape == pixels.shape[:2]
    assert found.label == found.top[0][0] and sum(fraction for _, fraction in found.top) == pytest.approx(1)
    assert (found.mask_file, found.overlay_file) == (None, None)
    (written,) = vpt.predict(vpt.load(tuned), [picture], out=tmp_path / "masks")
    assert written.mask is not None and np.array_equal(written.mask, found.mask) and written.mask.dtype == np.uint16
    assert written.mask_in_memory is None and "mask" in written.to_dict()
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {
        f"{picture.stem}.mask.png", f"{picture.stem}.overlay.png",
    }  # fmt: skip
    with pytest.raises(vpt.SpecError, match="top: for classification, and the model is for segmentation"):
        vpt.predict(tuned, pixels, top=1)


def test_embed_with_a_segmentation_model_is_refused_before_data_are_read(ade20k, tuned, tmp_path):
    for call in (lambda: vpt.embed(tuned, ade20k), lambda: vpt.embed_to_file(tuned, ade20k, tmp_path / "features.csv")):
        with pytest.raises(UnsupportedError, match=r"embed.* is for models that classify images"):
            call()


def test_classification_options_for_segmentation_are_refused(ade20k, tuned, tmp_path, capsys):
    picture = ade20k / "images/validation/scene_0.jpg"
    for arguments, option in (
        (
            ("tune", ade20k, "--out", tmp_path / "x.safetensors", *SMALL, "--interpolation", "bicubic"),
            "--interpolation",
        ),
        (("tune", ade20k, "--out", tmp_path / "x.safetensors", *SMALL, "--resize", "squash"), "--resize"),
        (("eval", tuned, ade20k, "--split", "val", "--workers", 2), "--workers"),
        (("predict", tuned, picture, "--out", tmp_path, "--top", 2), "--top"),
    ):
        with pytest.raises(SystemExit) as left:
            run_main(*arguments)
        assert left.value.code == ExitCode.USAGE
        assert f"{option}: for classification, and" in capsys.readouterr().err
    with pytest.raises(SpecError, match=r"resize: for classification, and .* is for segmentation"):
        make_job(ade20k, tmp_path / "x.safetensors", resize="crop")
    with pytest.raises(SpecError, match=r"resize is no option of segmentation"):
        Job.create(ade20k, tmp_path / "x.safetensors", small(), resize="crop")
    with pytest.raises(
        SpecError, match=r"random_crop augments images of class.*; segmentation has flip, vert.*, full, none"
    ):
        small(augment="random_crop")


def small(**options: object) -> SegmentationConfig:
    config = SegmentationConfig.for_method(
        parse_method("vpt(length=2)"), batch_size=2, iterations=8, eval_every=2, learning_rate=1.0
    )
    return config.replace(**options)


def test_segmentation_commands_on_voc_layout_tune_eval_and_predict(tmp_path, capsys):
    root = tmp_path / "VOC2012"
    write_split(root / "JPEGImages", root / "SegmentationClass", 7)
    for path in (root / "SegmentationClass").iterdir():
        with Image.open(path) as mask:
            ids = np.asarray(mask).copy()
        ids[-2:] = 255  # the rim of things
        colors = Image.fromarray(ids)
        colors.putpalette(  # as VOC has them: an index
            np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes()
        )
        colors.save(path)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for part, which in (("train", range(4)), ("val", range(4, 7))):
        (root / f"ImageSets/Segmentation/{part}.txt").write_text("".join(f"scene_{i}\n" for i in which))

    results = {}
    for name, options in {"watched": [], "whole": ["--train-on", "trainval"], "held": ["--val-as-test"]}.items():
        out = tmp_path / f"{name}.safetensors"
        run_main("tune", root, "--out", out, "--method", "bias", *SMALL, *options)
        results[name] = json.loads((out.with_suffix(".run") / "result.json").read_text())
    assert {name: (result["eval_split"], result["images"]) for name, result in results.items()} == {
        "watched": ("val", {"train": 4, "val": 3}),
        "whole": ("train", {"train": 7}),
        "held": ("test", {"train": 3, "val": 1, "test": 3}),
    }
    assert len(results["watched"]["per_class"]) == 21 and "aeroplane" in results["watched"]["per_class"]
    tuned = tmp_path / "watched.safetensors"
    capsys.readouterr()
    run_main("eval", tuned, root, "--split", "val", "--json")
    assert json.loads(capsys.readouterr().out)["miou"] == results["watched"]["metrics"]["val_miou"]
    run_main("predict", tuned, root / "JPEGImages" / "scene_5.jpg", "--out", tmp_path / "predicted")
    with Image.open(tmp_path / "predicted" / "scene_5.mask.png") as mask:
        assert mask.size == (70, 52) and np.asarray(mask).max() < 21


def test_fit_resumed_after_interrupt_is_bit_identical(ade20k, tmp_path):
    class Interrupt(Callback):
        def on_epoch(self, record: EpochMetrics) -> None:
            if record.epoch == 2:
                raise KeyboardInterrupt

    whole, dataset = new_model(ade20k)
    history = fit(whole, SegmentationObjective(whole, dataset, small()), small())
    assert history[-1].train_loss < history[0].train_loss
    named = history[-1].metrics
    assert list(named) == ["train_pixel_accuracy", "val_miou", "val_pixel_accuracy"]
    assert (named["train_pixel_accuracy"], named["val_miou"]) == (history[-1].train_metric, history[-1].val_metric)
    path = tmp_path / "checkpoint.safetensors"
    part, dataset = new_model(ade20k)
    with pytest.raises(KeyboardInterrupt):
        fit(part, SegmentationObjective(part, dataset, small()), small(), checkpoint=path, callback=Interrupt())
    again, dataset = new_model(ade20k)
    fit(again, SegmentationObjective(again, dataset, small()), small(), checkpoint=path)
    for name, tensor in whole.trainable_state_dict().items():
        assert torch.equal(tensor, again.trainable_state_dict()[name]), name


def test_segmentation_config_with_iterations_derives_epochs_and_rates():
    config = SegmentationConfig.for_method(parse_method("full"), iterations=10, eval_every=4, batch_size=8)
    assert config.num_epochs == 3
    peak = config.training.learning_rate * 8 / 256
    assert config.lr_at(5, 12, 4) == pytest.approx(peak * 0.5**0.9)
    assert config.training.learning_rate * config.training.head_lr_scale == pytest.approx(0.03)
    with pytest.raises(SpecError, match="iterations"):
        SegmentationConfig(iterations=0)
