"""Figures draw names from a user's disk as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vpt.plots.figures import confusion_matrix, method_comparison, scatter, training_curves
from vpt.plots.literal import literal

HOSTILE = (
    "Ba$$in",
    "$5",
    "$x$ and $y$",
    r"$\frac{1}{0}$",
    "_hidden",
    "\x1b[31mred",
    "caf\udce9",
    "[/bold]",
    "<b>&amp;",
)
EPOCHS = [{"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "train_metric": 0.5, "val_metric": 0.5}]


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", HOSTILE)
def test_figures_with_a_hostile_name_draw_it(name: str, tmp_path: Path) -> None:
    training_curves(tmp_path / "curve.png", EPOCHS, name)
    confusion_matrix(tmp_path / "confusion.svg", np.eye(2, dtype=np.int64), [name, "plain"], name)
    method_comparison(tmp_path / "methods.png", {name: [0.5], "plain": [0.7]}, name)
    scatter(tmp_path / "points.png", {name: np.zeros((2, 2))}, np.arange(2), [name, "plain"])
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("a$b$", r"a\$b\$"),
        ("_a", "\N{ZERO WIDTH SPACE}_a"),
        ("a\nb", "a\nb"),
        ("a\tb", r"a\tb"),
        ("\udcff", r"\udcff"),
        ("Žluť", "Žluť"),
    ],
)
def test_literal_of_special_characters_escapes_them(name: str, drawn: str) -> None:
    assert literal(name) == drawn
