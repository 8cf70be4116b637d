"""Trainings on several labels and on numbers resume as those on classes do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vpt
from helpers.brightness import FAST, draw_numbers, draw_tags

TAGS: dict[str, Any] = {"classes": ("red", "green", "blue"), "class_weights": "balanced"}
NUMBERS: dict[str, Any] = {"method": "vpt(length=2)", "learning_rate": 0.02}


class Interrupt(vpt.Callback):
    def on_epoch(self, record: Any) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (draw_tags, {**TAGS, "method": "linear"}),
        (draw_tags, {**TAGS, "method": "vpt(length=2)"}),
        (draw_numbers, {**NUMBERS, "loss": "l1"}),
        (draw_numbers, {**NUMBERS, "loss": "mse"}),
    ],
)
def test_tune_interrupted_resumes_to_the_same_file(
    make: Callable[[int], Any], options: dict[str, Any], tmp_path: Path
) -> None:
    options = {**FAST, **options}
    whole = vpt.tune(make(24), tmp_path / "a.safetensors", **options)
    with pytest.raises(KeyboardInterrupt):
        vpt.tune(make(24), tmp_path / "b.safetensors", callback=Interrupt(), **options)
    vpt.tune(make(24), tmp_path / "b.safetensors", **options)
    assert (tmp_path / "b.safetensors").read_bytes() == Path(whole.file).read_bytes()
