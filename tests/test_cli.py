"""The command line, as a user types it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from vpt import METHODS
from vpt.artifact import inspect
from vpt.check import check
from vpt.cli import COMMANDS, main
from vpt.data import images
from vpt.errors import ExitCode

SMALL = ["--epochs", "4", "--batch-size", "8", "--method", "vpt(length=2)", "--lr", "0.5"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Light discs and light bars on dark noise: 16 images of each of two classes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :48]
    figures = {"disc": (x - 24) ** 2 + (y - 20) ** 2 < 190, "bars": x % 12 < 6}
    for name, figure in figures.items():
        (root / name).mkdir()
        for i in range(16):
            pixels = rng.integers(0, 90, (40, 48, 3), dtype=np.uint8)
            pixels[figure] += rng.integers(100, 160, 3, dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def tuned(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned file of those photos."""
    out = tmp_path_factory.mktemp("tuned") / "photos.safetensors"
    vpt("tune", photos, "--out", out, *SMALL)
    return out


def vpt(*args: object) -> None:
    """Run a command in this process; a failure leaves by SystemExit."""
    main([str(arg) for arg in args])


def code(*args: object) -> int:
    """Run a command that fails; its exit code."""
    with pytest.raises(SystemExit) as left:
        vpt(*args)
    return int(left.value.code or 0)


def started(*args: object, **options: object) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    line = [sys.executable, "-c", "from vpt.cli import main; main()", *map(str, args)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    # A shell's background job ignores Ctrl-C, and what it starts inherits that: here the signal must be heard.
    options = {"preexec_fn": partial(signal.signal, signal.SIGINT, signal.SIG_DFL), **options}
    return subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=env, **options)  # type: ignore[call-overload,no-any-return]


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from vpt.cli import main\n"
        "try: main(['tune', '--help'])\n"
        "finally: assert not {'torch', 'timm', 'numpy', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    vpt(name, "--help")
    text = capsys.readouterr().out
    assert f"vpt {name}" in text
    assert name == "demo" or f"\n  vpt {name} " in text


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert code("tuen") == ExitCode.USAGE
    assert "did you mean 'tune'?" in capsys.readouterr().err


def test_check_counts_as_the_paper_does(capsys: pytest.CaptureFixture[str]) -> None:
    vpt("check", "vit_base_patch16_224", "vpt(length=100)", "--classes", 6, "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["total"], found["trained"]) == (86_724_870, 926_214)
    assert found["hangs_at"] == [f"blocks.{i}.attn" for i in range(12)]
    dense = ("--classes", 150, "--image-size", 512, "--head", "setr_pup(auxiliary=3)")
    vpt("check", "vit_large_patch16_384", "vpt(length=10)", *dense)
    assert "of which head 13,143,640" in capsys.readouterr().out


def test_check_loads_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    made, create = [], timm.create_model

    def record(name: str, **options: Any) -> Any:
        made.append((create(name, **options), options["pretrained"]))
        return made[-1][0]

    monkeypatch.setattr(timm, "create_model", record)
    vpt("check", "vit_base_patch16_224.augreg_in21k", "--classes", 6)
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
def test_check_where_the_first_weight_is_the_methods_own(backbone: str, method: str) -> None:
    """It is made on the CPU, and the rest holds no values: what hangs goes where the backbone is."""
    vpt("check", backbone, method, "--classes", 6)


def test_check_refuses_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert code("check", "resnet18", "vpt", "--classes", 6) == ExitCode.FIT
    assert "methods that fit: linear, mlp, partial, bias" in capsys.readouterr().err
    assert code("check", "resnet81", "vpt", "--classes", 6) == ExitCode.BACKBONE
    assert "resnet18" in capsys.readouterr().err
    assert code("check", "resnet18", "vpt(lenght=3)", "--classes", 6) == ExitCode.USAGE
    assert "did you mean 'length'?" in capsys.readouterr().err


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    vpt("list", "methods", "--json")
    assert {text.partition("(")[0] for text in json.loads(capsys.readouterr().out)} == METHODS.keys()
    vpt("list", "tasks", "--json")
    assert {"digits", "numerals", "count", "orientation", "cifar100", "cub"} <= set(json.loads(capsys.readouterr().out))
    vpt("list", "backbones", "vit_base*dinov3*")
    assert "vit_base_patch16_dinov3" in capsys.readouterr().out
    for what, pattern, names in (("methods", "vp*", {"vpt"}), ("tasks", "*count", {"count", "clevr_count"})):
        vpt("list", what, pattern, "--json")
        assert {text.partition("(")[0] for text in json.loads(capsys.readouterr().out)} == names
    for what in ("methods", "tasks", "backbones"):
        assert code("list", what, "xyzzy") == ExitCode.USAGE
        assert f"none of the {what} fits 'xyzzy'" in capsys.readouterr().err


def test_tune_leaves_a_file_and_a_folder(tuned: Path) -> None:
    run = tuned.with_suffix(".run")
    assert {"job.json", "checkpoint.safetensors", "metrics.jsonl", "result.json", "curve.png", "confusion.png"} <= {
        path.name for path in run.iterdir()
    }
    assert [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    assert tuned.stat().st_size < 40_000
    for picture in ("curve.png", "confusion.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) > 200


def test_tune_learns_and_says_so(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vpt("tune", photos, "--out", tmp_path / "a.safetensors", *SMALL, "--json")
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["top1"] == 1.0
    assert result["per_class"] == {"bars": 1.0, "disc": 1.0}
    assert result["images"] == {"train": 20, "val": 6, "test": 6}
    assert result["trained_parameters"] == 8 * 2 * 128 + 2 * 129
    assert "epoch 4/4" in captured.err
    assert "left" in captured.err


def test_the_same_command_again_only_reads(photos: Path, tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tuned.stat().st_mtime_ns
    vpt("tune", photos, "--out", tuned, *SMALL)
    assert "--overwrite does it again" in capsys.readouterr().err
    assert tuned.stat().st_mtime_ns == before


def test_other_settings_on_the_same_file_are_refused(
    photos: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code("tune", photos, "--out", tuned, *SMALL, "--lr", 3) == ExitCode.USAGE
    assert "recipe.learning_rate: 0.5 then, 3.0 now" in capsys.readouterr().err


def test_show_eval_predict(photos: Path, tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vpt("show", tuned)
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


def test_eval_measures_images_that_tuning_never_saw(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file keeps how its data were cut; another seed would mix in images that were learned."""
    out = tmp_path / "cut.safetensors"
    vpt("tune", photos, "--out", out, *SMALL, "--seed", 3, "--test-fraction", 0.25, "--json")
    told = json.loads(capsys.readouterr().out)
    vpt("eval", out, photos, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == told["images"]["test"] == 8
    assert found["top1"] == told["top1"] and inspect(out).cut["seed"] == 3


def test_parts_that_do_not_fit_into_memory(
    photos: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = images.decode
    monkeypatch.setattr(images, "decode", lambda *args, **rest: usual(*args, memory_limit=1, **rest))
    vpt("eval", tuned, photos, "--part", "train", "--json")
    assert json.loads(capsys.readouterr().out)["top1"] == 1.0
    vpt("predict", tuned, photos, "--json")
    assert len(capsys.readouterr().out.splitlines()) == 32


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tune", "digits", "--seed", -1), "seed is -1"),
        (("check", "vit_base_patch16_224", "vpt", "--classes", 0), "num_classes is 0"),
        (("check", "vit_base_patch16_224", "vpt", "--classes", -1), "num_classes is -1"),
        (("tune", "digits", "--image-size", -1), "image_size is -1"),
    ],
)
def test_numbers_that_make_no_sense(
    arguments: tuple[object, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--out", tmp_path / "x.safetensors") if arguments[0] == "tune" else ()
    assert code(*arguments, *more) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_neither_files_nor_folders_of_others_are_replaced(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, own, alone = tmp_path / "photo.png", tmp_path / "own.run", tmp_path / "alone.safetensors"
    photo.write_bytes((photos / "disc" / "0.png").read_bytes())
    alone.write_bytes(tuned.read_bytes())
    own.mkdir()
    (own / "thesis.txt").write_text("years of work")
    before = {path: path.read_bytes() for path in (photo, alone, own / "thesis.txt")}
    for out, more, said in (
        (photo, [], "photo.png is there and is no tuned file"),
        (photo, ["--overwrite"], "photo.png is there and is no tuned file"),
        (own.with_suffix(".safetensors"), ["--overwrite"], "holds no run, but 'thesis.txt'"),
        (tmp_path / "new.run", [], "new.run cannot be the tuned file"),
        (alone, [], "what made it is not known"),
    ):
        assert code("tune", photos, "--out", out, *SMALL, *more) == ExitCode.USAGE
        assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    vpt("tune", photos, "--out", alone, *SMALL, "--seed", 1, "--overwrite")
    assert alone.read_bytes() != before[alone]
    assert code("explain", tuned, photo, "--out", photo) == ExitCode.USAGE
    assert photo.read_bytes() == before[photo]


def test_what_a_killed_job_left_of_its_images_is_no_hindrance(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "a.run" / "pixels-0").mkdir(parents=True)
    for name in (".job.json.x8f2.json", "metrics.jsonl"):
        (tmp_path / "a.run" / name).write_text("")
    vpt("tune", photos, "--out", tmp_path / "a.safetensors", *SMALL)
    assert not (tmp_path / "a.run" / "pixels-0").exists()


def test_data_without_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code("tune", "", "--out", tmp_path / "a.safetensors", *SMALL) == ExitCode.DATA
    assert "the data are ''" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 bytes."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 3 bytes."),
    ],
)
def test_lack_of_memory_is_said(
    said: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise said

    monkeypatch.setattr("vpt.tune.tune", fail)
    assert code("tune", "digits") == ExitCode.MEMORY
    error = capsys.readouterr().err
    assert "memory ran out" in error and "--batch-size" in error
    said = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        vpt("tune", "digits")


@pytest.mark.parametrize(
    ("method", "form"),
    [
        ("vpt", "prompts as keys and values; the last block computes CLS alone"),
        ("lora", "the last block computes CLS alone"),
        ("vpt(form=textbook, output=image_mean)", "as timm computes it"),
        ("full", "the model as it is"),
    ],
)
def test_check_says_how_it_is_computed(method: str, form: str) -> None:
    assert check("vit_base_patch16_224", method, 3).form == form


def test_options_for_segmentation_are_refused(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, option in (
        (("tune", photos, "--out", tmp_path / "x.safetensors", "--ignore", 0), "--ignore"),
        (("eval", tuned, photos, "--reduce-zero"), "--reduce-zero"),
        (("eval", tuned, photos, "--scales", "1"), "--scales"),
        (("predict", tuned, photos, "--out", tmp_path / "masks"), "--out"),
    ):
        assert code(*arguments) == ExitCode.USAGE
        assert f"{option}: for segmentation, and" in capsys.readouterr().err


def test_predict_names_what_is_missing(tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code("predict", tuned, tmp_path / "no.png") == ExitCode.DATA
    assert code("predict", tuned, tmp_path) == ExitCode.DATA
    assert code("predict", tmp_path / "no.safetensors", tmp_path) == ExitCode.DATA
    assert "no.png does not exist" in capsys.readouterr().err


def test_what_eval_and_predict_leave_out_is_named(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("disc", "bars"):
        (tmp_path / "new" / name).mkdir(parents=True)
        for i in range(8):
            (tmp_path / "new" / name / f"{i}.png").write_bytes((photos / name / f"{i}.png").read_bytes())
    for torn in ("disc/0.png", "bars/3.png"):
        (tmp_path / "new" / torn).write_bytes(b"no image")
    assert code("predict", tuned, tmp_path / "new") == ExitCode.DATA
    assert capsys.readouterr().err.count("not an image") == 2
    vpt("predict", tuned, tmp_path / "new", "--json", "--skip-corrupt")
    heard = capsys.readouterr()
    answers = [json.loads(line) for line in heard.out.splitlines()]
    assert len(answers) == 14
    assert all(Path(answer["image"]).parent.name == answer["top"][0]["class"] for answer in answers)
    assert heard.err.count("left out") == 2
    vpt("eval", tuned, tmp_path / "new", "--part", "train", "--json", "--skip-corrupt")
    heard = capsys.readouterr()
    assert json.loads(heard.out)["top1"] == 1.0
    assert json.loads(heard.out)["images"] + heard.err.count("left out") == 8  # of 16: val and test have four each


def test_eval_refuses_other_classes(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code("eval", tuned, "digits") == ExitCode.DATA
    assert "not tuned for" in capsys.readouterr().err


def test_corrupt_images_are_named_all_at_once_before_training(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("disc", "bars"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        for i in range(16):
            (tmp_path / "bad" / name / f"{i}.png").write_bytes((photos / name / f"{i}.png").read_bytes())
        (tmp_path / "bad" / name / "torn.png").write_bytes((photos / name / "0.png").read_bytes()[:100])
    arguments = ("tune", tmp_path / "bad", "--out", tmp_path / "bad.safetensors", *SMALL)
    assert code(*arguments) == ExitCode.DATA
    error = capsys.readouterr().err
    assert error.count("torn.png") == 2
    assert not (tmp_path / "bad.safetensors").exists()
    vpt(*arguments, "--skip-corrupt")
    assert capsys.readouterr().err.count("torn.png") == 2


def test_random_crops_are_cut_from_images_kept_larger(photos: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "crops.safetensors", tmp_path / "kept"
    vpt("tune", photos, "--out", out, *SMALL, "--augment", "resize_crop", "--cache", kept)
    sides = sorted(np.load(file, mmap_mode="r").shape[-1] for file in kept.glob("pixels-*.npy"))
    assert sides == [48, 48, 48, 68]  # train, val and test as the backbone takes them, and train to cut from
    assert not list(kept.glob("*-crop*"))
    assert json.loads((tmp_path / "crops.run" / "result.json").read_text())["top1"] > 0.5


@pytest.mark.parametrize("augment", ["crop", "resize_crop"])
def test_what_is_cut_has_the_shape_of_what_is_tested(augment: str, tmp_path: Path) -> None:
    """A disc stays round in training where it is round in testing: with `--resize crop` no image is squashed."""
    y, x = np.mgrid[:60, :120]
    disc = np.where((x - 60) ** 2 + (y - 30) ** 2 < 400, 255, 0).astype(np.uint8)
    for name in ("a", "b"):
        (tmp_path / "wide" / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(disc).save(tmp_path / "wide" / name / f"{i}.png")
    kept = tmp_path / "kept"
    vpt("tune", tmp_path / "wide", "--out", tmp_path / "x.safetensors", *SMALL, "--augment", augment,
        "--resize", "crop", "--cache", kept)  # fmt: skip
    cut_from = max((np.load(file) for file in kept.glob("pixels-*.npy")), key=lambda found: found.shape[-1])
    light = cut_from[0, 0] > 127
    assert abs(int(light.any(0).sum()) - int(light.any(1).sum())) <= 1
    assert 0.6 < light.any(0).sum() / len(light) < 0.73  # 40 of 60 px: the whole height is there


def test_a_diverging_run_stops_with_advice_and_is_recorded(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "nan.safetensors"
    assert code("tune", photos, "--out", out, *SMALL, "--lr", 1e30) == ExitCode.TRAINING
    error = capsys.readouterr().err
    assert "epoch 1, step" in error
    assert "try a learning rate of 1e+29" in error
    failure = json.loads((tmp_path / "nan.run" / "result.json").read_text())
    assert failure["status"] == "failed"
    assert not out.exists()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and masks of two classes."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    for i in range(6):
        mask = (np.indices((40, 50)).sum(0) > rng.integers(20, 70)).astype(np.uint8)
        for kind, pixels in (("images", np.repeat(mask[..., None] * 150 + rng.integers(50), 3, 2)), ("masks", mask)):
            (root / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(root / kind / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        ("photos", ("--epochs", 40)),
        ("scenes", ("--iterations", 40, "--interval", 1, "--head", "linear", "--image-size", 48)),
    ],
)
@pytest.mark.parametrize(("how", "left"), [(signal.SIGKILL, -9), (signal.SIGINT, ExitCode.INTERRUPTED)])
def test_a_stopped_run_ends_with_the_bits_of_an_unbroken_one(
    how: signal.Signals,
    left: int,
    data: str,
    settings: tuple[object, ...],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    photos = request.getfixturevalue(data)
    settings = (*settings, "--batch-size", 4, "--method", "vpt(length=2, dropout=0.1)")
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    unbroken = started("tune", photos, "--out", whole, *settings)
    unbroken.communicate()
    assert unbroken.returncode == 0
    process = started("tune", photos, "--out", broken, *settings)
    metrics = tmp_path / "broken.run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(how)
    _, error = process.communicate()
    assert process.returncode == left
    if how == signal.SIGINT:
        assert "the same command goes on" in error
    assert not broken.exists()
    again = started("tune", photos, "--out", broken, *settings)
    assert "going on after epoch" in again.communicate()[1]
    results = [json.loads((tmp_path / f"{name}.run" / "result.json").read_text()) for name in ("whole", "broken")]
    histories = [[{**epoch, "seconds": 0} for epoch in result["history"]] for result in results]
    assert histories[0] == histories[1]
    assert whole.read_bytes() == broken.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a Unix matter")
def test_a_file_that_cannot_be_written_is_said(photos: Path, tmp_path: Path) -> None:
    import resource

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    process = started("tune", photos, "--out", tmp_path / "a.safetensors", *SMALL, preexec_fn=limit)
    _, error = process.communicate()
    assert process.returncode == ExitCode.STORAGE
    assert "could not be written" in error
    assert not list(tmp_path.glob("*.safetensors"))
