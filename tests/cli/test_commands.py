"""The command line, as a user types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import timm
from PIL import Image

from helpers.command_line import SMALL, command_names, exit_code, vpt
from helpers.json_answers import closed_validator
from vpt.analysis.summary import summarize
from vpt.cli import COMMANDS
from vpt.data.decoding import arrays as images
from vpt.data.loading import load_scored_dataset
from vpt.errors import ExitCode
from vpt.model.header import inspect

EARLIER = Path(__file__).parents[1] / "compatibility" / "samples" / "tuned" / "linear.safetensors"  # of format 1


def test_small_commands_import_no_torch(tuned: Path) -> None:
    """One process answers them all, and torch would stay in `sys.modules`."""
    small = [["--version"], ["--help"], *([*words, "--help"] for words in command_names())]
    small += [["list", what, *more] for what in ("methods", "tasks", "backbones") for more in ([], ["--json"])]
    small += [["data", "list"], ["schema"], ["schema", "error"]]
    small += [["inspect", str(file), *more] for file in (tuned, EARLIER) for more in ([], ["--json"])]
    code = (
        "import sys; from vpt.cli import main\n"
        f"for words in {small}:\n"
        "    try: main(words)\n"
        "    except SystemExit as left: assert not left.code, words\n"
        "    loaded = {'torch', 'timm', 'scipy.io', 'rich', 'matplotlib'} & set(sys.modules)\n"
        "    assert not loaded, (words, loaded)\n"
        "print('all without torch')"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.endswith("all without torch\n")


def test_predict_imports_no_part_of_training(tuned: Path, photos: Path) -> None:
    code = (
        "import sys; from vpt.cli import main\n"
        f"main(['predict', {str(tuned)!r}, {str(photos / 'disc' / '0.png')!r}])\n"
        "slow = {'sklearn', 'scipy.sparse', 'scipy.stats', 'matplotlib', 'vpt.search', 'vpt.experiments'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    vpt(name, "--help")
    text = capsys.readouterr().out
    assert f"vpt {name}" in text
    assert name == "demo" or f"\n  vpt {name} " in text


def test_summary_of_paper_models_equals_the_counts_of_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    vpt("summary", "vit_base_patch16_224", "vpt(length=100)", "--classes", 6, "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["total"], found["trainable"]) == (86_724_870, 926_214)
    assert found["injected_modules"] == [f"blocks.{i}.attn" for i in range(12)]
    dense = ("--classes", 150, "--image-size", 512, "--head", "setr_pup(auxiliary=3)")
    vpt("summary", "vit_large_patch16_384", "vpt(length=10)", *dense)
    assert "of which head 13,143,640" in capsys.readouterr().out


def test_summary_of_pretrained_model_loads_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    made, create = [], timm.create_model

    def record(name: str, **options: Any) -> Any:
        made.append((create(name, **options), options["pretrained"]))
        return made[-1][0]

    monkeypatch.setattr(timm, "create_model", record)
    vpt("summary", "vit_base_patch16_224.augreg_in21k", "--classes", 6)
    assert made
    for model, pretrained in made:
        assert not pretrained and all(weight.is_meta for weight in model.parameters())


@pytest.mark.parametrize(
    ("backbone", "method"),
    [
        ("swin_tiny_patch4_window7_224", "ssf"),
        ("swin_tiny_patch4_window7_224", "vpt(location=concat_channel, depth=shallow)"),
        ("convnext_tiny", "ssf"),
    ],
)
def test_summary_of_method_with_weights_at_the_input_succeeds(backbone: str, method: str) -> None:
    """The added weights are created on the meta device of the backbone, not on the CPU."""
    vpt("summary", backbone, method, "--classes", 6)


def test_tune_of_a_folder_writes_tuned_file_and_run_directory(tuned: Path) -> None:
    run = tuned.with_suffix(".run")
    assert {"job.json", "checkpoint.safetensors", "metrics.jsonl", "result.json", "curve.png", "confusion.png"} <= {
        path.name for path in run.iterdir()
    }
    assert [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    assert tuned.stat().st_size < 40_000
    for picture in ("curve.png", "confusion.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) > 200


def test_tune_with_json_prints_metrics_and_progress(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vpt("tune", photos, "--out", tmp_path / "a.safetensors", *SMALL, "--json", "--events", tmp_path / "events.jsonl")
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["metrics"]["test_top1"] == 1.0
    assert result["per_class"] == {"bars": 1.0, "disc": 1.0}
    assert result["images"] == {"train": 20, "val": 6, "test": 6}
    assert result["trainable_parameters"] == 8 * 2 * 128 + 2 * 129
    assert "epoch 4/4" in captured.err
    assert "left" in captured.err
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    for event in events:
        closed_validator("event").validate(event)
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [1, 2, 3, 4]
    assert next(event for event in events if event["event"] == "train_end")["metrics"] == result["metrics"]


def test_inspect_eval_and_predict_of_tuned_file_print_results(
    photos: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vpt("inspect", tuned)
    text = capsys.readouterr().out
    assert "vpt(length=2" in text
    assert "bars, disc" in text
    assert re.search(r"\ntest_mean_per_class  [01]\.\d{4}\n", text)
    vpt("eval", tuned, photos, "--json")
    assert json.loads(capsys.readouterr().out)["top1"] == 1.0
    vpt("predict", tuned, photos / "disc" / "0.png", photos / "bars", "--json")
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == 17
    assert [answer["top"][0]["class"] for answer in answers] == ["disc"] + ["bars"] * 16


def test_eval_without_split_options_scores_the_test_split_of_tuning(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file keeps how its data were cut; another seed would mix in images that were learned."""
    out = tmp_path / "cut.safetensors"
    vpt("tune", photos, "--out", out, *SMALL, "--seed", 3, "--test-fraction", 0.25, "--json")
    tuned_result = json.loads(capsys.readouterr().out)
    vpt("eval", out, photos, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == tuned_result["images"]["test"] == 8
    assert found["top1"] == tuned_result["metrics"]["test_top1"] and inspect(out).split_options["seed"] == 3


def test_eval_split_seed_replaces_the_recorded_one(photos: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Mock(wraps=load_scored_dataset)
    monkeypatch.setattr("vpt.tasks.classification.task.load_scored_dataset", read)
    vpt("eval", tuned, photos, "--split", "train")
    vpt("eval", tuned, photos, "--split", "train", "--split-seed", 5)
    assert [call.kwargs["seed"] for call in read.call_args_list] == [0, 5]


def test_eval_and_predict_beyond_the_memory_limit_succeed(
    photos: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = images.decode
    monkeypatch.setattr(images, "decode", lambda *args, **rest: usual(*args, memory_limit=1, **rest))
    vpt("eval", tuned, photos, "--split", "train", "--json")
    assert json.loads(capsys.readouterr().out)["top1"] == 1.0
    vpt("predict", tuned, photos, "--json")
    assert len(capsys.readouterr().out.splitlines()) == 32


@pytest.mark.parametrize(
    ("method", "computation"),
    [
        ("vpt", "prompts as keys and values; the last block computes the class token only"),
        ("lora", "the last block computes the class token only"),
        ("vpt(impl=concat, output=image_mean)", "that of timm"),
        ("full", "the unchanged model"),
    ],
)
def test_summary_of_each_method_names_its_computation(method: str, computation: str) -> None:
    assert summarize("vit_base_patch16_224", method, 3).computation == computation


def test_eval_and_predict_with_skip_corrupt_name_omitted_images(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("disc", "bars"):
        (tmp_path / "new" / name).mkdir(parents=True)
        for i in range(8):
            (tmp_path / "new" / name / f"{i}.png").write_bytes((photos / name / f"{i}.png").read_bytes())
    for corrupt in ("disc/0.png", "bars/3.png"):
        (tmp_path / "new" / corrupt).write_bytes(b"no image")
    assert exit_code("predict", tuned, tmp_path / "new") == ExitCode.DATA
    assert capsys.readouterr().err.count("not an image") == 2
    vpt("predict", tuned, tmp_path / "new", "--json", "--skip-corrupt")
    captured = capsys.readouterr()
    answers = [json.loads(line) for line in captured.out.splitlines()]
    assert len(answers) == 14
    assert all(Path(answer["image"]).parent.name == answer["top"][0]["class"] for answer in answers)
    assert captured.err.count("left out") == 2
    vpt("eval", tuned, tmp_path / "new", "--split", "train", "--json", "--skip-corrupt")
    captured = capsys.readouterr()
    assert json.loads(captured.out)["top1"] == 1.0
    # Of 16 images val and test have four each.
    assert json.loads(captured.out)["images"] + captured.err.count("left out") == 8


def test_tune_with_random_resized_crop_caches_larger_images(photos: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "crops.safetensors", tmp_path / "kept"
    vpt("tune", photos, "--out", out, *SMALL, "--augment", "random_resized_crop", "--cache", cache)
    shapes = sorted((np.load(file, mmap_mode="r").shape for file in cache.glob("pixels-*.npy")), key=len)
    # Train to cut from, in one array of bytes; train, val and test as the backbone takes them.
    train_images = max(shape[0] for shape in shapes[1:])
    assert shapes[0] == (3 * 68 * 68 * train_images,)
    assert [shape[1:] for shape in shapes[1:]] == [(3, 48, 48)] * 3
    assert not list(cache.glob("*-view*"))
    assert json.loads((tmp_path / "crops.run" / "result.json").read_text())["metrics"]["test_top1"] > 0.5


@pytest.mark.parametrize("augment", ["random_crop", "random_resized_crop"])
def test_tune_with_random_crops_keeps_the_aspect_ratio(augment: str, tmp_path: Path) -> None:
    """A disc stays round in training where it is round in testing: with `--resize crop` no image is squashed."""
    y, x = np.mgrid[:60, :120]
    disc = np.where((x - 60) ** 2 + (y - 30) ** 2 < 400, 255, 0).astype(np.uint8)
    for name in ("a", "b"):
        (tmp_path / "wide" / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(disc).save(tmp_path / "wide" / name / f"{i}.png")
    cache = tmp_path / "kept"
    vpt("tune", tmp_path / "wide", "--out", tmp_path / "x.safetensors", *SMALL, "--augment", augment,
        "--resize", "crop", "--cache", cache)  # fmt: skip
    records = [json.loads(file.read_text()) for file in cache.glob("*.json")]
    (height, width), *_ = next(record["shapes"] for record in records if "shapes" in record)
    assert width == 2 * height  # nothing is cut off
    (cut_from,) = (found for found in map(np.load, cache.glob("pixels-*.npy")) if found.ndim == 1)
    light = cut_from[: height * width].reshape(height, width) > 127
    assert abs(int(light.any(0).sum()) - int(light.any(1).sum())) <= 1
    assert 0.6 < light.any(0).sum() / len(light) < 0.73  # 40 of 60 px: the whole height is there
