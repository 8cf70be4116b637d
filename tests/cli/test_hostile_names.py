"""Names of classes and files that terminals, pictures and encodings cannot take as they are."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command_line import exit_code, start_command, vpt
from vpt.errors import printable
from vpt.plots import figures


def write_classes(root: Path, *names: str) -> Path:
    rng = np.random.default_rng(0)
    for k, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 120, (24, 24, 3), dtype=np.uint8) + np.uint8(135 // len(names) * k)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_names_in_refusals_stay_on_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a\nnote: all is well.png").write_bytes(b"")
    assert exit_code("tune", tmp_path, "--out", tmp_path / "x.safetensors", "--epochs", 1) == 3
    assert r"a\nnote: all is well.png" in capsys.readouterr().err
    assert exit_code("explain", "x", tmp_path / "a.png", "--out", "\x1b[2Ja.png", "--block", "b") == 2
    assert exit_code("inspect", "\x1b[2J", "more") == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize(
    "name",
    [
        "Ba$$in",
        "[bold red]x",
        "[link=a]b",
        "_first",
        "a\x1b[2Jb",
        "$a$ ^_{",
        "<script>",
        "-dash",
        "x" * 200,
        "a\u202eb\u2066c\u200f \U0001f600 trail ",
        "=1+1 {x}%s\\ \tb",
    ],
)
def test_tune_with_a_hostile_class_name_prints_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = write_classes(tmp_path / "data", name, "plain")
    vpt("tune", data, "--out", tmp_path / "a.safetensors", "--method", "linear", "--epochs", 1)
    printed = capsys.readouterr()
    hidden = {"\x1b", "\u202e", "\u2066", "\u200f"}
    assert not hidden & set(printed.out)
    pages = {path.name: path.read_text() for path in (tmp_path / "a.run").glob("*.html")}
    assert "report.html" in pages and not [page for page, text in pages.items() if hidden & set(text)]
    assert json.loads((tmp_path / "a.run/result.json").read_text())["per_class"].keys() == {name, "plain"}
    assert (tmp_path / "a.run/confusion.png").exists() and "could not be drawn" not in printed.err
    vpt("eval", tmp_path / "a.safetensors", data, "--split", "train")
    assert printable(name) in capsys.readouterr().out


def test_tune_with_names_outside_the_encoding_escapes_them(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data", "Žluť", "naïve")
    (data / "naïve/0.png").rename(data / "naïve/猫\udcff.png")
    out = tmp_path / "a.safetensors"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"}
    commands = [
        ("tune", data, "--out", out, "--method", "linear", "--epochs", "1"),
        ("eval", out, data, "--split", "train"),
        ("predict", out, data),
        ("inspect", out),
    ]
    for command in commands:
        with start_command(*command, env=environment, encoding="cp1252") as process:
            output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert r"\u0165" in output, command


def test_tune_with_a_picture_that_fails_keeps_the_result(tmp_path: Path, capsys, monkeypatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(figures, "confusion_matrix", fail)
    data = write_classes(tmp_path / "data", "a", "b")
    vpt("tune", data, "--out", tmp_path / "a.safetensors", "--method", "linear", "--epochs", 1)
    assert "could not be drawn: no fonts" in capsys.readouterr().err
    assert json.loads((tmp_path / "a.run/result.json").read_text())["status"] == "done"


@pytest.mark.parametrize("encoding", ["latin-1", "cp437", "koi8-r", "shift_jis", "cp1250"])
@pytest.mark.parametrize("command", [("data", "check"), ("tune", "--split-names", "train=absent")])
def test_output_in_an_encoding_that_lacks_letters_escapes_them(
    command: tuple[str, ...], encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The screen of a folder and the message of a refusal."""
    data = write_classes(tmp_path / "data", "Žluť", "naïve", "кот", "猫")
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    if command[0] == "data":
        vpt(*command, data)
    else:
        assert exit_code(command[0], data, *command[1:]) == 3
    printed = b"".join(stream.buffer.getvalue() for stream in streams.values()).decode(encoding)  # type: ignore[attr-defined]
    for letter in "ťïк猫":
        try:
            letter.encode(encoding)
        except UnicodeEncodeError:
            assert f"\\u{ord(letter):04x}" in printed or f"\\x{ord(letter):02x}" in printed
        else:
            assert letter in printed
