"""Outputs that would replace what a command reads, or join it."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command_line import exit_code, vpt
from vpt.errors import ExitCode


@pytest.mark.parametrize("out", ["labels.csv", "labels.png", "tuned.png"])
def test_embed_over_a_table_that_it_reads_is_refused(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("labels.csv", "tuned.csv"):
        (tmp_path / name).write_text("path,label\n")
    assert exit_code("embed", "tuned.csv", "labels.csv,more.csv", "--out", out) == ExitCode.USAGE
    read = "tuned.csv" if out == "tuned.png" else "labels.csv"
    assert f"{read} would be written, and {read} is read from; choose another name" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["eval", "embed"])
@pytest.mark.parametrize("name", ["disc/0.png", "disc/new.PNG", "plots/new.png"])
def test_picture_among_the_images_that_are_measured_is_refused(
    command: str, name: str, photos: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (photos / "disc" / "0.png").read_bytes()
    assert exit_code(command, tuned, photos, "--out", photos / name) == ExitCode.USAGE
    assert f"{photos / name} would be read as a part of {photos}; write it" in capsys.readouterr().err
    assert (photos / "disc" / "0.png").read_bytes() == before and not (photos / "disc" / "new.PNG").exists()


def test_picture_over_an_image_that_a_table_lists_is_refused(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "0.png"
    image.write_bytes((photos / "disc" / "0.png").read_bytes())
    (tmp_path / "labels.csv").write_text("path,label\n0.png,disc\n")
    before = image.read_bytes()
    assert exit_code("eval", tuned, tmp_path / "labels.csv", "--out", image) == ExitCode.USAGE
    assert f"{image} would be written, and {image} is read from" in capsys.readouterr().err
    assert image.read_bytes() == before


def test_embed_over_another_table_than_its_own_is_refused(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "points.csv"
    table.write_text("image,class\n")
    arguments = ("embed", tuned, photos, "--out", tmp_path / "points.png")
    assert exit_code(*arguments) == ExitCode.USAGE
    assert f"written to {table}, which holds something else" in capsys.readouterr().err
    assert table.read_text() == "image,class\n"
    table.unlink()
    vpt(*arguments)
    vpt(*arguments)  # over its own


def test_predict_over_a_table_that_it_reads_is_refused(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, journal = tmp_path / "labels.csv", tmp_path / "labels.csv.partial"
    (tmp_path / "0.png").write_bytes((photos / "disc" / "0.png").read_bytes())
    table.write_text("path,label\n0.png,disc\n")
    journal.write_text("kept")
    assert exit_code("predict", tuned, table, "--out", table, "--overwrite") == ExitCode.USAGE
    assert f"{table} would be written, and {table} is read from" in capsys.readouterr().err
    assert table.read_text().startswith("path,label") and journal.read_text() == "kept"
