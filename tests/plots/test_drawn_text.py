"""Every kind of figure at its printed size: no text is cut off or lies on other text, and no tick has an exponent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from helpers.drawn_text import faults
from vpt.plots import figures, label_scores
from vpt.plots.heatmaps import heatmaps, image_grid
from vpt.plots.method_comparison import method_comparison

RNG = np.random.default_rng(0)
SHORT = tuple("abcdefghij")
LONG = tuple(f"{name} of the northern hemisphere, juvenile" for name in ("gull", "tern", "auk", "petrel", "skua"))
MANY = tuple(f"class {i:03} with a name" for i in range(120))
TITLE = (
    'vpt(length=50, depth="deep", location="prepend", dropout=0.1) + bias on a data set with a rather long name, test'
)
PIXELS = RNG.integers(0, 255, (60, 80, 3), dtype=np.uint8)


def history(epochs: int, low: float, high: float) -> list[dict[str, Any]]:
    losses = np.linspace(high, low, epochs)
    metrics = {"train_top1": 0.5, "val_top1": 0.4}
    return [{"epoch": i + 1, "train_loss": x, "val_loss": 1.1 * x, "metrics": metrics} for i, x in enumerate(losses)]


def confusion(classes: tuple[str, ...], largest: int) -> Any:
    return RNG.integers(0, largest, (len(classes),) * 2)


def points(classes: int) -> tuple[dict[str, Any], Any]:
    panels = {name: RNG.normal(size=(3 * classes, 2)) for name in ("before, frozen backbone", "after, tuned")}
    return panels, np.arange(3 * classes) % classes


METHODS = ("vpt(length=4, depth=shallow)", "vpt(length=50)", "vpt + bias", "lora(rank=16, targets='qkv proj')", "full")
KINDS: dict[str, Callable[[Path], None]] = {
    "curve": lambda path: figures.training_curves(path, history(30, 0.21, 2.3), TITLE),
    "curve of one epoch": lambda path: figures.training_curves(path, history(1, 0.6, 0.6), "one epoch"),
    "curve within a decade": lambda path: figures.training_curves(path, history(12, 0.52, 0.69), "hardly learns"),
    "curve that diverges": lambda path: figures.training_curves(path, history(8, 12.6, 555.0), "diverges"),
    "curve of tiny losses": lambda path: figures.training_curves(path, history(100, 2e-6, 3.0), "fits"),
    "curve of a number": lambda path: figures.training_curves(
        path, [{**epoch, "metrics": {"train_r2": -1.5}} for epoch in history(5, 0.1, 1.0)], "age", labels={"r2": "R²"}
    ),
    "curve of two metrics": lambda path: figures.training_curves(
        path,
        [{**epoch, "metrics": {"train_pixel_accuracy": 0.8, "val_miou": 0.4, "val_pixel_accuracy": 0.7}}
         for epoch in history(30, 0.21, 2.3)],
        TITLE, xlabel="evaluation interval of 200 iterations",
        labels={"miou": "mIoU", "pixel_accuracy": "pixel accuracy"},
    ),
    "confusion": lambda path: figures.confusion_matrix(path, confusion(SHORT, 50), SHORT, TITLE),
    "confusion of 2": lambda path: figures.confusion_matrix(path, confusion(LONG[:2], 9000), LONG[:2], TITLE),
    "confusion of 20": lambda path: figures.confusion_matrix(path, confusion(MANY[:20], 9999), MANY[:20], TITLE),
    "confusion of 50": lambda path: figures.confusion_matrix(path, confusion(MANY[:50], 9999), MANY[:50], TITLE),
    "confusion of 120": lambda path: figures.confusion_matrix(path, confusion(MANY, 9999), MANY, TITLE),
    "confusion in percent": lambda path: figures.confusion_matrix(
        path, confusion(LONG, 10**7), LONG, TITLE, unit="percent"
    ),
    "examples": lambda path: figures.class_examples(path, dict.fromkeys(LONG, [PIXELS] * 3), TITLE),
    "one example": lambda path: figures.class_examples(path, {key: [PIXELS] for key in LONG}, TITLE),
    "search": lambda path: figures.search_summary(
        path, history(30, 0.2, 2.3), confusion(LONG, 90), LONG, [(PIXELS, f"{LONG[0]}\nas {LONG[1]}, 87 %")] * 6, TITLE
    ),
    "sweep of numbers": lambda path: figures.sweep(
        path, {"": {x: [0.7, 0.8] for x in (1, 5, 10, 50, 100, 200)}}, "prompts per block, p", TITLE, log_scale=True
    ),
    "sweep of lines": lambda path: figures.sweep(
        path, {name: {float(x): [0.7, 0.8, 0.75] for x in (10, 25, 50, 100)} for name in METHODS},
        "share of the training images, %", TITLE,
    ),
    "sweep of names": lambda path: figures.sweep(
        path, {name: {key: [0.6, 0.8] for key in METHODS} for name in ("deep", "shallow")}, "method", TITLE
    ),
    "scatter of numbers": lambda path: label_scores.predicted_against_true(
        path, RNG.normal(size=(30, 2)) * 1e6, "the price of a house", TITLE
    ),
    "class scores": lambda path: label_scores.class_scores(
        path, {name: RNG.random() for name in MANY[:50]}, "average precision, %", TITLE
    ),
    "class scores of 120": lambda path: label_scores.class_scores(
        path, {name: RNG.random() for name in MANY}, "average precision, %", TITLE
    ),
    "embedding": lambda path: figures.scatter(path, *points(20), MANY[:20], "t-SNE, perplexity 30, seed 0"),
    "embedding of 120": lambda path: figures.scatter(path, *points(120), MANY, "t-SNE, perplexity 30, seed 0"),
    "attention": lambda path: heatmaps(
        path,
        PIXELS,
        [{f"rollout {i}, tuned minus frozen": RNG.normal(size=(4, 5)) / 10**i for i in range(k, 4)} for k in (1, 2)],
        TITLE,
        signed=("rollout 1, tuned minus frozen",),
        shares=[0.1, 0.5, 0.3],
    ),
    "grid of images": lambda path: image_grid(
        path,
        [(f"{name}.jpg\n{name}, 93.1 %", PIXELS, {"attention": RNG.random((4, 5)), "drop": RNG.random((4, 5)) - 0.5})
         for name in LONG[:3]],
        TITLE,
        signed=("drop",),
    ),
    "comparison": lambda path: method_comparison(
        path,
        {key: [0.5, 0.6, 0.55] for key in METHODS},
        TITLE,
        curves={name: [(x / 9, x / 10) for x in range(10)] for name in METHODS},
        examples=dict.fromkeys((*LONG, *SHORT[:5]), PIXELS),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_figure_of_each_kind_has_readable_text(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    KINDS[kind](tmp_path / "figure.png")
    (figure,) = drawn
    assert faults(figure) == []


def test_faults_of_text_that_overlaps_or_leaves_the_figure_are_named() -> None:
    figure = Figure((2, 2))
    for x, text in ((0.4, "one"), (0.45, "other"), (0.9, "beyond the edge"), (0.1, "$10^{-1}$")):
        figure.text(x, 0.5, text)
    found = faults(figure)
    assert "'one' lies on 'other'" in found and "'$10^{-1}$' has an exponent" in found
    assert any(fault.startswith("'beyond the edge' is cut off") for fault in found)
