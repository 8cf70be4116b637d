"""The picture of a search, which never costs its result."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vpt.plots import figures
from vpt.search.outcome import Scored
from vpt.search.pictures import draw_search
from vpt.training import Callback, Examples

EXAMPLES = Examples(np.zeros((2, 3, 8, 8), np.uint8), np.zeros(2, np.int64))
LOGITS = np.array([[1.0, 0.0], [0.0, 1.0]])
SCORED = Scored("test", EXAMPLES, np.arange(2), LOGITS, LOGITS, EXAMPLES.labels, None)


class Notes(Callback):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Any, Any]:
    """A model of two classes with one mistake, and its scores."""
    data = SimpleNamespace(
        classes=("a", "b"),
        name="ab",
        examples=lambda: {"a": list(np.zeros((3, 8, 8, 3), np.uint8))},
    )
    backbone = SimpleNamespace(preprocessing=SimpleNamespace(size=8))
    job = SimpleNamespace(run_dir=tmp_path, method="linear")
    final = SimpleNamespace(job=job, data=data, model=SimpleNamespace(backbone=backbone), history=[])
    confusion = np.array([[1, 1], [0, 0]])
    return final, SimpleNamespace(metrics={"top1": 0.5}, images=2, confusion=confusion, split="test")


def test_draw_of_a_search_writes_its_picture(finished: tuple[Any, Any], tmp_path: Path) -> None:
    notes = Notes()
    draw_search(finished[0], SCORED, finished[1], notes)
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in ("search", "examples"))
    assert not notes.texts


def test_draw_of_a_search_names_its_metrics(finished: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(figures, "search_summary", lambda *arguments: given.extend(arguments))
    draw_search(finished[0], SCORED, finished[1], Notes())
    assert given[-1]["balanced_accuracy"] == "balanced accuracy"


def test_draw_of_a_search_that_fails_becomes_a_note(
    finished: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(figures, "search_summary", fail)
    notes = Notes()
    draw_search(finished[0], SCORED, finished[1], notes)
    (text,) = notes.texts
    assert "search.png could not be drawn: No space left on device; the result is complete without it" in text
