"""Options of the command line: groups of one task, configuration files, completion."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.command_line import SMALL, code, vpt
from vpt.cli.option_groups import TaskOption
from vpt.cli.tune import command
from vpt.errors import ExitCode
from vpt.tasks.registry import TASKS


def test_tune_help_shows_one_group_for_each_task(capsys: pytest.CaptureFixture[str]) -> None:
    vpt("tune", "--help")
    text = capsys.readouterr().out
    common, _, rest = text.partition("Options:")[2].partition("Options of classification:")
    classification, _, segmentation = rest.partition("Options of segmentation:")
    assert "--epochs" in classification and "--epochs" not in common + segmentation
    assert "--iterations" in segmentation and "--iterations" not in common + classification
    assert "--batch-size" in common


@pytest.mark.parametrize("name", TASKS)
def test_group_of_a_task_holds_exactly_the_options_that_only_it_has(name: str) -> None:
    def options(task: str) -> set[str]:
        config = TASKS[task].config_class
        return set(config.option_names()) | set(vars(config.options_class())) - {"training"}

    (other,) = TASKS.keys() - {name}
    group = {option.name for option in command.params if isinstance(option, TaskOption) and option.task == name}
    assert group == options(name) - options(other)


def test_option_of_the_other_task_is_refused(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.safetensors"
    assert code("tune", photos, "--out", out, *SMALL, "--head", "fpn", "--iterations", 3) == ExitCode.USAGE
    assert f"--head, --iterations: for segmentation, and {photos} is for classification" in capsys.readouterr().err
    assert not out.exists()


def test_run_toml_repeats_a_run_and_the_command_line_overrides_it(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tuned.with_suffix(".run") / "run.toml"
    values = tomllib.loads(saved.read_text())
    assert (values["data"], values["epochs"], values["learning_rate"]) == (str(photos), 4, 0.5)
    before = tuned.stat().st_mtime_ns
    vpt("tune", "--config", saved)
    assert "--overwrite does it again" in capsys.readouterr().err
    assert tuned.stat().st_mtime_ns == before
    vpt("tune", "--config", saved, "--out", tmp_path / "b.safetensors", "--epochs", 1, "--json")
    result = json.loads(capsys.readouterr().out)
    assert len(result["history"]) == 1 and result["job"]["config"]["learning_rate"] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epohcs = 3\n", "unknown option 'epohcs'; did you mean 'epochs'"),
        ("epochs = \n", "cannot be read as TOML"),
        ("iterations = 3\n", "--iterations: for segmentation"),
    ],
)
def test_config_file_with_a_fault_is_refused(
    text: str, message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text(text)
    assert code("tune", photos, "--config", tmp_path / "run.toml", "--out", tmp_path / "x.safetensors") == 2
    assert message in capsys.readouterr().err


def test_tune_names_the_next_commands(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.safetensors"
    vpt("tune", photos, "--out", out, *SMALL, "--device", "cpu")
    text = capsys.readouterr().out
    assert f"vpt predict {out} IMAGE" in text
    (command_line,) = re.findall(r"vpt (eval .*)", text)
    vpt(*shlex.split(command_line))
    assert "top-1 100.00 %" in capsys.readouterr().out


def test_absent_device_is_refused(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.safetensors"
    assert code("tune", photos, "--out", out, *SMALL, "--device", "mps") == ExitCode.USAGE
    assert "device is 'mps', which torch does not find on this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [("vpt pre", "predict"), ("vpt tune --met", "--method"), ("vpt tune --method lo", "lora"),
     ("vpt tune --backbone vit_nano", "vit_nano_patch12_48")],
)  # fmt: skip
def test_shell_completion_knows_commands_options_and_names(words: str, expected: str) -> None:
    env = {**os.environ, "_VPT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    line = [sys.executable, "-c", "from vpt.cli import main; main()"]
    found = subprocess.run(line, env=env, capture_output=True, text=True, check=True).stdout
    assert f"plain,{expected}" in found.splitlines()
