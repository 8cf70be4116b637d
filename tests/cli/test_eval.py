"""`vpt eval`: the tables, the JSON values and the picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import vpt as library
from helpers.command_line import exit_code, vpt
from vpt.core.intervals import wilson


def test_eval_with_confusion_shows_counts_or_percent(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vpt("eval", tuned, photos, "--json", "--confusion", "percent", "--out", tmp_path / "confusion.png")
    values = json.loads(capsys.readouterr().out)
    assert values["confusion"] == [[100.0, 0.0], [0.0, 100.0]]
    assert values["class_rates"]["disc"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert values["macro"]["f1"] == 1.0 and values["intervals"]["top1"] == pytest.approx(wilson(6, 6))
    assert 0 < values["calibration_error"] < 1
    with Image.open(tmp_path / "confusion.png") as picture:
        assert min(picture.size) > 200
    vpt("eval", tuned, photos, "--confusion", "counts")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| class | images | precision, % | recall, % | F1, % |"
    assert "| disc | 3 | 100.0 | 100.0 | 100.0 |" in lines and "| disc | 0 | 3 |" in lines
    assert lines[-3:-1] == ["95 % interval of top-1: 61.0 to 100.0 %", "95 % interval of macro F1: 61.0 to 100.0 %"]
    assert lines[-1].startswith("calibration error ")


def test_eval_in_python_has_the_values_of_the_command(
    photos: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vpt("eval", tuned, photos, "--json")
    found = library.evaluate(tuned, photos)
    assert found.to_dict() == json.loads(capsys.readouterr().out)
    assert found.confusion_table() == [[3, 0], [0, 3]]


def test_eval_picture_of_another_format_is_refused_first(
    photos: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("eval", tuned, photos, "--out", "confusion.txt") == 2
    assert "confusion.txt" in capsys.readouterr().err


def test_eval_prints_its_scores_before_a_page_fails(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert exit_code("eval", tuned, photos, "--out", tmp_path / "file" / "page.HTML")
    assert "6 test images" in capsys.readouterr().out
    vpt("eval", tuned, photos, "--out", tmp_path / "page.HTML")
    assert "<h2>Confusion</h2>" in (tmp_path / "page.HTML").read_text(encoding="utf-8")
    assert exit_code("eval", tuned, photos, "--out", tmp_path / "page.txt") == 2
    assert "end it in .html, .png or .svg" in capsys.readouterr().err
