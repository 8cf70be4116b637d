"""Figures draw names from a user's disk as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.plots.canvas import make_figure
from vpt.plots.figures import _draw_curves, class_examples, confusion_matrix, scatter, training_curves
from vpt.plots.literal import literal
from vpt.plots.method_comparison import method_comparison

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
    curves, examples = {name: [(0.5, 0.4), (1.0, 0.5)]}, {name: np.zeros((4, 6, 3), np.uint8)}
    method_comparison(tmp_path / "methods.png", {name: [0.5], "plain": [0.7]}, name, curves=curves, examples=examples)
    scatter(tmp_path / "points.png", {name: np.zeros((2, 2))}, np.arange(2), [name, "plain"], name)
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


@pytest.mark.parametrize(("name", "label", "drawn"), [("top1", "top-1, %", 50.0), ("r2", "R²", -1.5)])
def test_curves_of_numbers_are_no_percentages(name: str, label: str, drawn: float) -> None:
    panels = make_figure(9, 3.6).subplots(1, 2)
    value = 0.5 if name == "top1" else -1.5
    epochs = [{**EPOCHS[0], "metrics": {f"train_{name}": 0.5, f"val_{name}": value}}]
    _draw_curves(panels, epochs, "epoch", {"top1": "top-1", "r2": "R²"})
    assert panels[1].get_ylabel() == label and panels[1].lines[1].get_ydata().tolist() == [drawn]
    low, high = panels[1].get_ylim()
    assert low <= drawn <= high


def test_curves_of_train_and_val_in_a_panel_are_of_one_metric() -> None:
    metrics = {"train_pixel_accuracy": 0.8, "val_miou": 0.4, "val_pixel_accuracy": 0.7}
    panels = make_figure(13, 3.6).subplots(1, 3)
    _draw_curves(panels, [{**EPOCHS[0], "metrics": metrics}], "step", {"miou": "mIoU"})
    drawn = {axes.get_ylabel(): {line.get_label(): line.get_ydata()[0] for line in axes.lines} for axes in panels}
    assert drawn == {
        "loss": {"train": 1.0, "val": 1.0},
        "pixel_accuracy, %": {"train": 80.0, "val": 70.0},
        "mIoU, %": {"val": 40.0},
    }
