"""Files of a folder that are no images are named where its images are predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vpt
from helpers.command_line import vpt as command


class Notes(vpt.Callback):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(np.full((48, 48, 3), 90 * number, np.uint8)).save(folder / f"{number}.png")
    (folder / "clip.mp4").touch()
    return folder


@pytest.mark.parametrize("table", [False, True])
def test_prediction_of_a_folder_names_what_is_not_used(inbox: Path, tmp_path: Path, table: bool) -> None:
    model: Any = vpt.attach("vit_nano_patch12_48", "linear", 2, classes=("a", "b")).eval()
    callback = Notes()
    if table:
        vpt.predict_to_file(model, inbox, tmp_path / "a.csv", callback=callback)
    else:
        vpt.predict(model, inbox, callback=callback)
    (note,) = callback.texts
    assert note.startswith(f"not used: 1 entry of {inbox}: clip.mp4; clip.mp4 is a video")


@pytest.mark.parametrize("options", [[], ["--out", "answers.csv"]])
def test_vpt_predict_names_what_is_not_used_once(
    inbox: Path,
    tmp_path: Path,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    vpt.save(vpt.attach("vit_nano_patch12_48", "linear", 2, classes=("a", "b")), "a.safetensors")
    command("predict", "a.safetensors", inbox, *options)
    assert " ".join(capsys.readouterr().err.split()).count("note: not used: 1 entry of") == 1
