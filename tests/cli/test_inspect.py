"""`vpt inspect` of files of every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.command_line import vpt

SAMPLES = sorted((Path(__file__).parents[1] / "compatibility" / "samples").rglob("*.safetensors"))


def test_inspect_of_earlier_files_fits_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """The schema is checked where the answer is printed."""
    for file in SAMPLES:
        vpt("inspect", file, "--json")
        assert json.loads(capsys.readouterr().out)["format"] == 1
    assert len(SAMPLES) > 60
