"""`vpt merge`, and `vpt convert` as a command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import timm
import timm.data
import torch
from PIL import Image

from helpers.command_line import exit_code, vpt
from vpt import Backbone, attach, inspect, load_backbone, save
from vpt.data.preprocessing import Preprocessing
from vpt.errors import ExitCode
from vpt.model.label_kinds import MultiLabel, Regression, parse_label_kind
from vpt.model.tuned_model import TunedModel

NAME = "test_vit"  # the smallest of timm's transformers


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Random weights of the backbone in a file."""
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(timm.create_model(NAME, num_classes=0).state_dict(), path)
    return path


def tuned(weights: Path, method: str) -> TunedModel:
    torch.manual_seed(1)
    model = attach(load_backbone(NAME, weights=weights), method, 3, classes=["a", "b", "c"]).eval()
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    return model


@pytest.mark.parametrize("method", ["lora(rank=2)", "ssf", "partial", "full", "lora + bias + norm"])
@torch.no_grad()
def test_merged_file_loads_strictly_in_plain_timm(
    tmp_path: Path, weights: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tuned(weights, method), tmp_path / "timm.safetensors"
    file = save(model, tmp_path / "photos.safetensors")
    vpt("merge", file, "--weights", weights, "--out", out, "--json")
    answer = json.loads(capsys.readouterr().out)
    assert answer["file_bytes"] == out.stat().st_size
    plain = timm.create_model(NAME, num_classes=3).eval()
    plain.load_state_dict(safetensors.torch.load_file(out), strict=True)
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(2))
    expected = model(images)
    assert (plain(images) - expected).abs().max() <= 1e-5 * expected.abs().max()
    called = eval(answer["load"], {"timm": timm}).eval()
    assert torch.equal(called(images), plain(images))


def resized(backbone: Backbone, kind: str) -> Backbone:
    """Return the backbone with a preprocessing of the user's: all of it, or a crop by timm's own values."""
    own = backbone.preprocessing
    if kind == "cropped":
        return replace(backbone, preprocessing=replace(own, resize="crop"))
    changed = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear"}
    return replace(backbone, preprocessing=replace(own, **changed))


@pytest.mark.parametrize("kind", ["squashed", "cropped"])
def test_merged_file_keeps_classes_and_preprocessing(
    tmp_path: Path, weights: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = resized(load_backbone(NAME, weights=weights, image_size=96), kind)
    model, out = attach(backbone, "linear", 3, classes=["a", "b", "c"]).eval(), tmp_path / "timm.safetensors"
    model.label_kind = MultiLabel((0.2, 0.3, 0.4))
    file = save(model, tmp_path / "photos.safetensors", scores={"test_map": 0.5}, license="MIT")
    vpt("merge", file, "--weights", weights, "--out", out)
    _, call, *words = capsys.readouterr().out.splitlines()
    assert (kind == "squashed") == bool(words) == ("mean=(0.1, 0.2, 0.3)" in call) == ("crop_mode='squash'" in call)
    with safetensors.safe_open(out, framework="np") as opened:
        settings = json.loads(opened.metadata()["vpt-settings"])
    assert settings["classes"] == ["a", "b", "c"] and parse_label_kind(settings["label_kind"]) == model.label_kind
    assert Preprocessing.from_dict(settings["preprocessing"]) == backbone.preprocessing
    assert (settings["scores"], settings["license"]) == ({"test_map": 0.5}, "MIT")
    # timm's own transform of the model that the call makes is the preprocessing of the training.
    plain = eval(call, {"timm": timm}).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(plain))
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 120, 3), np.uint8))
    expected = backbone.preprocessing.normalize(torch.from_numpy(backbone.preprocessing.resize_image(photo)[None]))
    torch.testing.assert_close(transform(photo)[None], expected, atol=1e-6, rtol=1e-5)


def test_merge_of_prompts_is_refused(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tuned(weights, "vpt(length=2)"), tmp_path / "photos.safetensors")
    before = file.read_bytes()
    given = ("merge", file, "--weights", weights, "--out")
    assert exit_code(*given, tmp_path / "timm.safetensors") == ExitCode.UNSUPPORTED
    assert "is no linear change of a weight; lora, ssf, bias" in capsys.readouterr().err
    assert exit_code(*given, tmp_path / "timm.pth") == ExitCode.USAGE
    assert file.read_bytes() == before and not (tmp_path / "timm.safetensors").exists()


def test_merge_and_convert_over_an_input_are_refused(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, names, prompts = tmp_path / "lora", tmp_path / "names.safetensors", tmp_path / "prompt.pth"
    file = save(tuned(weights, "lora(rank=2)"), tmp_path / "photos.safetensors")
    vpt("convert", file, "--weights", weights, "--out", folder)
    names.write_text("a\nb\nc\n")
    torch.save({}, prompts)
    linked = tmp_path / "linked.safetensors"
    linked.hardlink_to(weights)
    inside = save(tuned(weights, "lora(rank=2)"), tmp_path / "own" / "adapter_model.safetensors")
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    for arguments, out in (
        (("merge", file), file),
        (("merge", file), weights),
        (("merge", file), linked),
        (("convert", file), file),
        (("convert", file), weights),
        (("convert", inside), inside.parent),
        (("convert", folder, "--classes", names), names),
        (("convert", folder), weights),
        (("convert", folder), folder),
        (("convert", folder), folder / "adapter_model.safetensors"),
        (("convert", prompts, "--backbone", NAME, "--classes", names), names),
    ):
        assert exit_code(*arguments, "--weights", weights, "--out", out) == ExitCode.USAGE, (arguments, out)
        what = "lies in" if out.parent == folder else "would overwrite"
        assert f"--out {out} {what} " in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_convert_with_a_long_list_of_classes_or_empty_names(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = save(tuned(weights, "lora(rank=2)"), tmp_path / "a.safetensors"), tmp_path / "lora"
    vpt("convert", file, "--weights", weights, "--out", folder)
    given = ("convert", folder, "--weights", weights, "--out", tmp_path / "back.safetensors", "--classes")
    vpt(*given, ",".join(letter * 900 for letter in "abc"))
    assert inspect(tmp_path / "back.safetensors").classes == tuple(letter * 900 for letter in "abc")
    capsys.readouterr()
    for text in ("cat,,dog", "cat,dog,", ""):
        assert exit_code(*given, text) == ExitCode.USAGE
        assert f"--classes {text!r} has a comma without a name" in capsys.readouterr().err


@torch.no_grad()
def test_convert_to_peft_and_back_keeps_what_the_header_says(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = load_backbone(NAME, weights=weights, image_size=96)
    model = attach(backbone, "lora(rank=2)", 1, classes=["age"]).eval()
    model.label_kind = Regression(40.0, 5.0)
    record = {"scores": {"test_mae": 2.5}, "split_options": {"seed": 3}, "protocol": "vtab-1k", "license": "MIT"}
    file, back = save(model, tmp_path / "a.safetensors", **record), tmp_path / "back.safetensors"
    vpt("convert", file, "--weights", weights, "--out", tmp_path / "lora")
    vpt("convert", tmp_path / "lora", "--weights", weights, "--out", back)
    first, second = inspect(file), inspect(back)
    assert first.license == "MIT"
    for name in ("label_kind", "classes", "preprocessing", "fingerprint", *record):
        assert getattr(first, name) == getattr(second, name), name
    assert first.preprocessing.size == 96
    torch.manual_seed(5)
    safetensors.torch.save_file(timm.create_model(NAME, num_classes=0).state_dict(), weights)
    again = exit_code("convert", tmp_path / "lora", "--weights", weights, "--out", back)
    assert again == ExitCode.TUNED_FILE and "load the same weights" in capsys.readouterr().err


@torch.no_grad()
def test_convert_to_peft_and_back_gives_an_equal_file(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tuned(weights, "lora(rank=2)")
    file, folder, back = save(model, tmp_path / "a.safetensors"), tmp_path / "lora", tmp_path / "back.safetensors"
    vpt("convert", file, "--weights", weights, "--out", folder)
    assert capsys.readouterr().out.startswith(f"{folder / 'adapter_model.safetensors'}: lora(rank=2) on {NAME}, ")
    vpt("convert", folder, "--weights", weights, "--classes", "a, b,c", "--out", back, "--json")
    assert json.loads(capsys.readouterr().out)["file"] == str(back)
    vpt("inspect", back, "--json")
    assert json.loads(capsys.readouterr().out)["classes"] == ["a", "b", "c"]
    first, second = map(safetensors.torch.load_file, (file, back))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_prompts_of_the_papers_code_are_a_start_of_training(tmp_path: Path, weights: Path, photos: Path) -> None:
    rng, module = np.random.default_rng(0), timm.create_model(NAME, num_classes=0)
    given = rng.normal(size=(len(module.blocks), 3, module.embed_dim)).astype(np.float32)
    prompts, start = tmp_path / "prompt_ep100.pth", tmp_path / "start.safetensors"
    torch.save({"shallow_prompt": given[:1], "deep_prompt": given[1:]}, prompts)
    vpt("convert", prompts, "--backbone", NAME, "--weights", weights, "--classes", "bars,disc", "--out", start)
    out = tmp_path / "photos.safetensors"
    tiny = ("--epochs", "1", "--lr", "1e-12", "--weight-decay", "0")
    vpt("tune", photos, "--init", start, "--weights", weights, "--out", out, *tiny)
    found = [tensor for name, tensor in sorted(safetensors.torch.load_file(out).items()) if "prompts" in name]
    np.testing.assert_allclose(torch.cat([each.reshape(-1, 3, module.embed_dim) for each in found]), given, atol=1e-6)
    assert inspect(out).classes == ("bars", "disc")


def test_convert_without_what_it_needs_is_refused(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompt_ep1.pth"
    torch.save({}, prompts)
    assert exit_code("convert", prompts, "--out", tmp_path / "a.safetensors") == ExitCode.USAGE
    assert "give --backbone and --classes" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert exit_code("convert", tmp_path / "empty", "--out", tmp_path / "a.safetensors") == ExitCode.TUNED_FILE
    assert "adapter_config.json does not exist" in capsys.readouterr().err
    file = save(tuned(weights, "lora(rank=2)"), tmp_path / "a.safetensors")
    assert exit_code("convert", file, "--classes", "a", "--out", tmp_path / "b") == ExitCode.USAGE
    assert "a tuned file has its classes" in capsys.readouterr().err
