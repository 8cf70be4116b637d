"""What a command refuses, and what it says then."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from helpers.command_line import SMALL, exit_code, vpt
from vpt.core.io import write_atomic
from vpt.errors import ExitCode, StorageError


def test_command_of_unknown_name_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("tuen") == ExitCode.USAGE
    assert "did you mean 'tune'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name", "message"),
    [
        (("tuen", "--json"), "USAGE", "there is no command 'tuen'"),
        (("list", "methods", "--jsn", "--json"), "USAGE", "No such option"),
        (("list", "methods", "xyzzy", "--json"), "USAGE", "no name of methods matches 'xyzzy'"),
        (("inspect", "missing.safetensors", "--json"), "TUNED_FILE", "missing.safetensors does not exist"),
    ],
)
def test_command_with_json_prints_its_error_on_both_streams(
    arguments: tuple[str, ...], name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = exit_code(*arguments)
    printed = capsys.readouterr()
    assert message in printed.err
    error = json.loads(printed.out)["error"]
    assert message in error["message"] and (error["code"], error["name"]) == (code, name)
    assert error["code"] == ExitCode[name]
    exit_code(*(word for word in arguments if word != "--json"))
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [("predict", "a.safetensors", ""), ("explain", "a.safetensors", " "), ("data", "check", "")]
)
def test_path_of_empty_text_is_not_the_current_folder(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*arguments) in (ExitCode.USAGE, ExitCode.DATA)
    assert "`.` is the current folder" in capsys.readouterr().err


def test_summary_of_unsupported_or_unknown_names_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("summary", "resnet18", "vpt", "--classes", 6) == ExitCode.UNSUPPORTED
    assert "methods that fit: linear, head2toe, mlp, partial, bias" in capsys.readouterr().err
    assert exit_code("summary", "resnet81", "vpt", "--classes", 6) == ExitCode.BACKBONE
    assert "resnet18" in capsys.readouterr().err
    assert exit_code("summary", "resnet18", "vpt(lenght=3)", "--classes", 6) == ExitCode.USAGE
    assert "did you mean 'length'?" in capsys.readouterr().err


def test_tune_with_other_settings_on_existing_run_is_refused(
    photos: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("tune", photos, "--out", tuned, *SMALL, "--lr", 3) == ExitCode.USAGE
    assert "config.learning_rate: 0.5 then, 3.0 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tune", "digits", "--seed", -1), "seed is -1"),
        (("summary", "vit_base_patch16_224", "vpt", "--classes", 0), "num_classes is 0"),
        (("summary", "vit_base_patch16_224", "vpt", "--classes", -1), "num_classes is -1"),
        (("tune", "digits", "--image-size", -1), "--image-size is -1"),
        (("tune", "digits", "--epochs", 1, "--crop-fraction", 0.5), "--crop-fraction is 0.5, and images are squashed"),
    ],
)
def test_commands_with_out_of_range_numbers_are_refused(
    arguments: tuple[object, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--out", tmp_path / "x.safetensors") if arguments[0] == "tune" else ()
    assert exit_code(*arguments, *more) == ExitCode.USAGE
    assert message in capsys.readouterr().err


def test_option_of_another_task_names_what_decided_on_the_task(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("tune", photos, "--task", "segmentation", "--epochs", 1) == ExitCode.USAGE
    assert "--epochs: for classification, and --task is segmentation" in capsys.readouterr().err
    assert exit_code("tune", photos, "--iterations", 1) == ExitCode.USAGE
    assert f"--iterations: for segmentation, and {photos} is for classification" in capsys.readouterr().err


def test_advice_of_an_error_names_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"")
    assert exit_code("tune", tmp_path, "--epochs", 1, "--out", tmp_path / "x.safetensors", "--json") == ExitCode.DATA
    printed = capsys.readouterr()
    advice = "or set --val-fraction 0 and --test-fraction 0"
    assert advice in printed.err and advice in json.loads(printed.out)["error"]["message"]


def test_tune_onto_foreign_files_is_refused(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, own, alone = tmp_path / "photo.png", tmp_path / "own.run", tmp_path / "alone.safetensors"
    photo.write_bytes((photos / "disc" / "0.png").read_bytes())
    alone.write_bytes(tuned.read_bytes())
    own.mkdir()
    (own / "thesis.txt").write_text("years of work")
    before = {path: path.read_bytes() for path in (photo, alone, own / "thesis.txt")}
    for out, more, message in (
        (photo, [], "photo.png already exists and is no tuned file"),
        (photo, ["--overwrite"], "photo.png already exists and is no tuned file"),
        (own.with_suffix(".safetensors"), ["--overwrite"], "is not a vpt run directory (it contains 'thesis.txt')"),
        (tmp_path / "new.run", [], "new.run cannot be the tuned file"),
        (alone, [], "its settings are not known"),
    ):
        assert exit_code("tune", photos, "--out", out, *SMALL, *more) == ExitCode.USAGE
        assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    vpt("tune", photos, "--out", alone, *SMALL, "--seed", 1, "--overwrite")
    assert alone.read_bytes() != before[alone]
    trained = alone.read_bytes()
    damaged = tmp_path / "damaged"
    for name in ("a", "b"):
        (damaged / name).mkdir(parents=True)
        (damaged / name / "0.png").write_bytes(photo.read_bytes()[:50])
    assert exit_code("tune", damaged, "--out", alone, *SMALL, "--overwrite") == ExitCode.DATA
    assert alone.read_bytes() == trained, "nothing has replaced it"
    assert exit_code("explain", tuned, photo, "--out", photo) == ExitCode.USAGE
    assert photo.read_bytes() == before[photo]


def test_tune_with_run_directories_in_the_data_ignores_them(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    for out in (data / "bars" / "inside.safetensors", data / "beside.safetensors"):
        vpt("tune", data, "--out", out, *SMALL)
        assert (out.with_suffix(".run") / "curve.png").exists()
    capsys.readouterr()
    vpt("tune", data, "--out", tmp_path / "a.safetensors", *SMALL, "--json")
    assert sum(json.loads(capsys.readouterr().out)["images"].values()) == 32
    vpt("predict", data / "beside.safetensors", data, "--json")
    assert len(capsys.readouterr().out.splitlines()) == 32


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_tune_of_class_name_that_is_not_utf8_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b"caf\xe9")
    shutil.copytree(photos, tmp_path / name)
    vpt("tune", tmp_path / name, "--out", tmp_path / "a.safetensors", *SMALL)  # as DATA it is only a title
    shutil.copytree(photos, tmp_path / "plain")
    (tmp_path / "plain" / "disc").rename(tmp_path / "plain" / name)
    assert exit_code("tune", tmp_path / "plain", "--out", tmp_path / "b.safetensors", *SMALL) == ExitCode.DATA
    assert "not valid UTF-8; rename" in capsys.readouterr().err


def test_inspect_of_a_folder_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("inspect", photos) == ExitCode.TUNED_FILE
    assert "is a folder, not a tuned file" in capsys.readouterr().err


def test_write_atomic_onto_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="not a regular file"):
        write_atomic(tmp_path / "pipe", b"")
    assert (tmp_path / "pipe").is_fifo()


def test_tune_of_empty_data_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("tune", "", "--out", tmp_path / "a.safetensors", *SMALL) == ExitCode.DATA
    assert "the data source is ''" in capsys.readouterr().err


@pytest.mark.parametrize(
    "raised",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 bytes."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 3 bytes."),
    ],
)
def test_tune_out_of_memory_exits_with_advice(
    raised: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise raised

    monkeypatch.setattr("vpt.tuning.run_job", fail)
    assert exit_code("tune", "digits", "--epochs", 1) == ExitCode.MEMORY
    error = capsys.readouterr().err
    assert "memory ran out" in error and "--batch-size" in error
    raised = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        vpt("tune", "digits", "--epochs", 1)


def test_segmentation_options_for_classification_are_refused(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, option in (
        (("tune", photos, "--out", tmp_path / "x.safetensors", "--ignore-index", 0), "--ignore-index"),
        (("eval", tuned, photos, "--reduce-zero-label"), "--reduce-zero-label"),
        (("eval", tuned, photos, "--scales", "1"), "--scales"),
        (("predict", tuned, photos, "--flip"), "--flip"),
    ):
        assert exit_code(*arguments) == ExitCode.USAGE
        assert f"{option}: for segmentation, and" in capsys.readouterr().err


def test_predict_of_absent_files_names_them(tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("predict", tuned, tmp_path / "no.png") == ExitCode.DATA
    assert exit_code("predict", tuned, tmp_path) == ExitCode.DATA
    assert exit_code("predict", tmp_path / "no.safetensors", tmp_path) == ExitCode.DATA
    assert "no.png does not exist" in capsys.readouterr().err


def test_eval_on_other_classes_is_refused(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("eval", tuned, "digits") == ExitCode.DATA
    assert "not tuned for" in capsys.readouterr().err


def test_tune_with_corrupt_images_names_all_before_training(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("disc", "bars"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        for i in range(16):
            (tmp_path / "bad" / name / f"{i}.png").write_bytes((photos / name / f"{i}.png").read_bytes())
        (tmp_path / "bad" / name / "torn.png").write_bytes((photos / name / "0.png").read_bytes()[:100])
    arguments = ("tune", tmp_path / "bad", "--out", tmp_path / "bad.safetensors", *SMALL)
    assert exit_code(*arguments) == ExitCode.DATA
    error = capsys.readouterr().err
    assert error.count("torn.png") == 2
    assert not (tmp_path / "bad.safetensors").exists()
    vpt(*arguments, "--skip-corrupt")
    assert capsys.readouterr().err.count("torn.png") == 2


def test_tune_with_events_inside_its_run_directory_is_refused(tmp_path, photos, capsys) -> None:
    events = tmp_path / "photos.run" / "events.jsonl"
    assert exit_code("tune", photos, "--out", tmp_path / "photos.safetensors", "--events", events) == ExitCode.USAGE
    assert "lies in a run directory" in capsys.readouterr().err
    assert not events.parent.exists()


def test_error_about_several_parameters_names_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("tune", "photos", "--minutes", "1", "--lr", "0.1") == ExitCode.USAGE
    assert "error: --minutes is 1" in (text := capsys.readouterr().err) and "and --lr is" in text
