"""One process writes an output: another one is refused before it reads anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command_line import SMALL, exit_code
from vpt.core.io import temporary_path
from vpt.core.lock import lock_output
from vpt.errors import ExitCode


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("a.run", ("tune", "{photos}", "--out", "{folder}/a.safetensors", *SMALL)),
        ("a.run", ("tune", "{photos}", "--out", "{folder}/a.safetensors", "--minutes", "1")),
        ("a.run", ("tune", "{photos}", "--out", "{folder}/a.safetensors", "--folds", "2", *SMALL)),
        ("a.run", ("tune", "{photos}", "--out", "{folder}/a.safetensors", "--overwrite", *SMALL)),
        ("a.csv", ("predict", "{tuned}", "{photos}", "--out", "{folder}/a.csv")),
        ("a.csv", ("predict", "{tuned}", "{photos}", "--out", "{folder}/a.csv", "--overwrite")),
        ("data", ("data", "import", "{folder}/missing.parquet", "--out", "{folder}/data")),
        ("eurosat", ("data", "prepare", "eurosat", "--from", "{photos}", "--out", "{folder}")),
    ],
)
def test_output_that_is_being_written_is_refused(
    output: str, words: tuple[str, ...], photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = temporary_path(tmp_path / "a.safetensors")
    with lock_output(tmp_path / output):
        left.write_bytes(b"of the one who holds the lock")
        before = sorted(tmp_path.rglob("*"))
        args = [word.format(photos=photos, tuned=tuned, folder=tmp_path) for word in words]
        assert exit_code(*args) == ExitCode.STORAGE
        assert sorted(tmp_path.rglob("*")) == before
    assert f"{output} is being written by process " in capsys.readouterr().err
