"""Figures draw names from a user's disk as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.plots.figures import class_examples, confusion_matrix, method_comparison, scatter, training_curves
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
    class_examples(tmp_path / "examples.png", {name: [np.zeros((4, 6, 3), np.uint8)]}, name)
    assert len(list(tmp_path.iterdir())) == 5


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


def test_class_examples_draw_one_row_a_class(tmp_path: Path) -> None:
    red, green, blue = (np.tile(np.eye(3, dtype=np.uint8)[k] * 255, (20, 20, 1)) for k in range(3))
    class_examples(tmp_path / "examples.png", {"warm": [red, red, green], "cold": [blue]}, "Training images")
    drawn = np.asarray(Image.open(tmp_path / "examples.png").convert("RGB"))
    areas = [(drawn == color[0, 0]).all(-1) for color in (red, green, blue)]
    assert areas[0].sum() == pytest.approx(2 * areas[1].sum(), rel=0.05)
    assert areas[1].sum() == pytest.approx(areas[2].sum(), rel=0.05)
    assert np.nonzero(areas[2])[0].min() > np.nonzero(areas[0])[0].max()
    class_examples(tmp_path / "none.png", {}, "Training images")
    assert not (tmp_path / "none.png").exists()
