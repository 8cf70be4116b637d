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
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
import pytest

from helpers.command_line import SMALL, exit_code, vpt
from vpt import inspect
from vpt import tune as vpt_tune
from vpt.api.models import TuneOptions
from vpt.cli import app
from vpt.cli.options import TaskOption
from vpt.cli.tune import command
from vpt.errors import ExitCode
from vpt.tasks.registry import TASKS
from vpt.tuning import make_job


def test_tune_help_shows_one_group_for_each_task(capsys: pytest.CaptureFixture[str]) -> None:
    vpt("tune", "--help")
    text = capsys.readouterr().out
    common, _, rest = text.partition("Options:")[2].partition("Options of classification:")
    classification, _, segmentation = rest.partition("Options of segmentation:")
    assert "--epochs" in classification and "--epochs" not in common + segmentation
    assert "--iterations" in segmentation and "--iterations" not in common + classification
    assert "--batch-size" in common and "--head " in common and not re.search("^  DATA", common, re.MULTILINE)


def _all_commands() -> list[click.Command]:
    commands = list(app.commands.values())
    return commands + [one for group in commands if isinstance(group, click.Group) for one in group.commands.values()]


@pytest.mark.parametrize("one", _all_commands(), ids=lambda one: one.callback.__module__ + "." + (one.name or ""))
def test_every_option_of_a_command_has_a_help_text(one: click.Command) -> None:
    options = [param for param in one.params if isinstance(param, click.Option)]
    assert [option.name for option in options if not option.help or option.help.startswith("[")] == []


@pytest.mark.parametrize("name", TASKS)
def test_option_group_of_each_task_holds_only_its_own_options(name: str) -> None:
    def options(task: str) -> set[str]:
        config = TASKS[task].config_class
        return set(config.option_names()) | set(vars(config.options_class())) - {"training"}

    (other,) = TASKS.keys() - {name}
    group = {option.name for option in command.params if isinstance(option, TaskOption) and option.task == name}
    assert group == options(name) - options(other)


def _literals(hint: Any) -> set[Any]:
    return {value for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal for value in get_args(kind)}


def test_choices_of_tune_are_those_of_python() -> None:
    types = get_type_hints(vpt_tune) | get_type_hints(TuneOptions)
    choices = {p.name: set(p.type.choices) for p in command.params if isinstance(p.type, click.Choice)}
    literals = {name: _literals(types[name]) for name in choices if name in types}
    assert {name: choices[name] for name in literals} == literals and len(literals) > 10


def test_tune_with_a_ridge_penalty_that_is_none_names_what_it_takes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for penalty, message in (
        ("much", "give a penalty above 0, auto or none"),
        (-1, 'a number above 0, "auto" or "none"'),
    ):
        assert (
            exit_code("tune", photos, "--out", tmp_path / "x.safetensors", *SMALL, "--ridge", penalty) == ExitCode.USAGE
        )
        assert message in " ".join(capsys.readouterr().err.split())


def test_tune_with_option_of_the_other_task_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.safetensors"
    assert exit_code("tune", photos, "--out", out, *SMALL, "--power", 1, "--iterations", 3) == ExitCode.USAGE
    assert f"--iterations, --power: for segmentation, and {photos} is for classification" in capsys.readouterr().err
    assert not out.exists()


def test_tune_with_config_of_a_run_repeats_it_and_options_override_it(
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


def test_tune_with_config_of_an_earlier_version_has_its_defaults(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (tuned.with_suffix(".run") / "run.toml").read_text().splitlines()
    assert lines.count('decay = "matrices"') == 1
    assert lines.count('ridge = "default"') == 1
    (tmp_path / "run.toml").write_text("\n".join(line for line in lines if not line.startswith(("decay", "ridge"))))
    out = ("--out", tmp_path / "b.safetensors", "--epochs", 1, "--json")
    vpt("tune", "--config", tmp_path / "run.toml", *out)
    job = json.loads(capsys.readouterr().out)["job"]
    assert job["config"]["decay"] == "all" and job["ridge"] == "none"


@pytest.mark.parametrize("options", [("--method", "linear"), ("--method", "mlp"), ("--class-weights", "balanced")])
def test_tune_with_config_of_a_run_goes_with_options_that_a_ridge_head_does_not_have(
    tuned: Path, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tuned.with_suffix(".run") / "run.toml"
    vpt("tune", "--config", saved, "--out", tmp_path / "b.safetensors", "--epochs", 1, *options, "--json")
    result = json.loads(capsys.readouterr().out)
    assert len(result["history"]) == 1 and not any("ridge head" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epohcs = 3\n", "unknown option 'epohcs'; did you mean 'epochs'"),
        ("epochs = \n", "cannot be read as TOML"),
        ("iterations = 3\n", "--iterations: for segmentation"),
    ],
)
def test_tune_with_faulty_config_file_is_refused(
    text: str, message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text(text)
    assert exit_code("tune", photos, "--config", tmp_path / "run.toml", "--out", tmp_path / "x.safetensors") == 2
    assert message in capsys.readouterr().err


def test_tune_with_multi_block_head_saves_and_uses_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, head = tmp_path / "m.safetensors", "multi_block(blocks=last2, features=cls+mean+std)"
    written = 'multi_block(blocks="last2", features="cls+mean+std")'
    vpt("tune", photos, "--out", out, *SMALL, "--head", head)
    assert f"vpt(length=2), {written} on " in " ".join(capsys.readouterr().out.split())
    header, result = inspect(out), json.loads((out.with_suffix(".run") / "result.json").read_text())
    assert header.head == result["head"] == written and header.num_classes == 2
    saved = out.with_suffix(".run") / "run.toml"
    assert tomllib.loads(saved.read_text())["head"] == head
    vpt("tune", "--config", saved)
    assert "--overwrite does it again" in capsys.readouterr().err
    assert exit_code("tune", "--config", saved, "--head", "linear") == ExitCode.USAGE
    assert "head: multi_block(blocks=last2, features=cls+mean+std) then, None now" in capsys.readouterr().err
    vpt("eval", out, photos, "--json")
    assert json.loads(capsys.readouterr().out)["top1"] == result["metrics"]["test_top1"]
    vpt("predict", out, photos / "disc" / "0.png")
    assert "disc" in capsys.readouterr().out


def test_tune_linear_with_multi_block_head_caches_features_of_its_blocks(photos: Path, tmp_path: Path) -> None:
    options = ("--epochs", 2, "--batch-size", 8, "--method", "linear", "--cache", tmp_path / "cache")
    sizes = []
    for number, head in enumerate(("linear", "multi_block(blocks=last2)")):
        out = tmp_path / f"{number}.safetensors"
        vpt("tune", photos, "--out", out, *options, "--head", head)
        result = json.loads((out.with_suffix(".run") / "result.json").read_text())
        sizes.append((result["head_parameters"] - 2) // 2)
        assert result["trainable_parameters"] == result["head_parameters"]
    assert sizes[1] == 4 * sizes[0]
    assert len(list((tmp_path / "cache").glob("features-*"))) == 2 * 3  # train, val and test for each head


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("fpn", "'fpn' is no head of classification; known: linear, multi_block"),
        ("setr_pup(channels=8)", "'setr_pup' is no head of classification; known: linear, multi_block"),
        ("multi_blok", "did you mean 'multi_block'"),
        ("multi_block(blocks=first)", "write all, last4"),
        ("linear(channels=3)", "has no field 'channels'"),
    ],
)
def test_tune_with_unknown_head_is_refused(
    head: str, message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.safetensors"
    assert exit_code("tune", photos, "--out", out, *SMALL, "--head", head) == ExitCode.USAGE
    assert message in capsys.readouterr().err and not out.with_suffix(".run").exists()


def test_make_job_with_linear_head_equals_the_default(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    assert make_job(photos, out, head="linear") == make_job(photos, out)


def test_summary_with_multi_block_head_counts_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    vpt("summary", "vit_base_patch16_224", "linear", "--classes", 6, "--head", "multi_block(blocks=last4)")
    text = capsys.readouterr().out
    assert "linear, multi_block(blocks=last4) on vit_base_patch16_224" in text
    assert f"of which head {6 * (4 * 2 * 768 + 1):,}" in text


@pytest.mark.parametrize("columns", ["1", "20", "40"])
def test_tables_in_a_narrow_terminal_fit_its_width(
    columns: str, photos: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    vpt("tune", photos, "--out", tuned, *SMALL)  # finished before: only its tables are printed
    lines = capsys.readouterr().out.splitlines()
    table = lines[: next(number for number, line in enumerate(lines) if line.startswith("top-1"))]
    assert table and max(map(len, table)) <= max(int(columns), 1) and any(line.startswith("trained") for line in lines)
    for words in (["list", "methods"], ["list", "tasks"], ["inspect", tuned]):
        vpt(*words)
    assert capsys.readouterr().out


def test_tune_of_a_folder_prints_the_next_commands(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    vpt("tune", photos, "--out", out, *SMALL, "--device", "cpu")
    text = capsys.readouterr().out
    assert f"vpt predict {out} IMAGE" in text
    (command_line,) = re.findall(r"vpt (eval .*)", text)
    vpt(*shlex.split(command_line))
    assert "top-1 100.00 %" in capsys.readouterr().out


def test_tune_on_absent_device_is_refused(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.safetensors"
    assert exit_code("tune", photos, "--out", out, *SMALL, "--device", "mps") == ExitCode.USAGE
    assert "device is 'mps', which torch does not find on this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [("vpt pre", "predict"), ("vpt tune --met", "--method"), ("vpt tune --method lo", "lora"),
     ("vpt tune --backbone vit_nano", "vit_nano_patch12_48")],
)  # fmt: skip
def test_shell_completion_of_partial_words_suggests_names(words: str, expected: str) -> None:
    env = {**os.environ, "_VPT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    line = [sys.executable, "-c", "from vpt.cli import main; main()"]
    found = subprocess.run(line, env=env, capture_output=True, text=True, check=True).stdout
    assert f"plain,{expected}" in found.splitlines()
