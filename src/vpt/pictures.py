"""Pictures of a run, for people who would rather look. They need matplotlib (`pip install "vpt[plots]"`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vpt.files import write_atomic_by
from vpt.training import Epoch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = 'pictures are left out: they need matplotlib; pip install "vpt[plots]"'


def available() -> bool:
    """Whether pictures can be drawn here."""
    return importlib.util.find_spec("matplotlib") is not None


def curve(path: Path, history: Sequence[Epoch], title: str) -> None:
    """Loss and top-1 by epoch, for train and, where there is one, val."""
    if not available():
        return
    figure = _figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    epochs = [epoch.epoch for epoch in history]
    left.plot(epochs, [epoch.train_loss for epoch in history], label="train")
    right.plot(epochs, [100 * epoch.train_top1 for epoch in history], label="train")
    if history and history[0].val_top1 is not None:
        left.plot(epochs, [epoch.val_loss for epoch in history], label="val")
        right.plot(epochs, [100 * (epoch.val_top1 or 0) for epoch in history], label="val")
    left.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
    right.set(xlabel="epoch", ylabel="top-1, %", ylim=(0, 101))
    right.legend(frameon=False)
    figure.suptitle(title)
    _save(figure, path)


def confusion(path: Path, counts: NDArray[np.int64], classes: Sequence[str], title: str) -> None:
    """The confusion matrix, rows normalised to the images of the true class; numbers up to 20 classes."""
    if not available():
        return
    n = len(classes)
    side = min(5 + 0.28 * n, 16)
    figure = _figure(side, side)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if n <= 50:
        axes.set_xticks(range(n), classes, rotation=90)
        axes.set_yticks(range(n), classes)
    if n <= 20:
        for i, j in np.argwhere(counts):
            axes.text(
                j,
                i,
                str(counts[i, j]),
                ha="center",
                va="center",
                color="white" if shares[i, j] > 0.5 else "black",
            )
    _save(figure, path)


def comparison(path: Path, runs: Mapping[str, Sequence[float]], title: str) -> None:
    """Top-1 of several methods: a dot for each run, a diamond for the mean. runs: method -> top-1 between 0 and 1."""
    if not available():
        return
    figure = _figure(7, 1.2 + 0.55 * len(runs))
    axes = figure.subplots()
    for row, values in enumerate(runs.values()):
        percent = 100 * np.asarray(values)
        # No bars: the axis does not begin at 0, so a bar's length would mislead.
        axes.plot(percent, np.full(len(percent), row), "o", color="0.6", markersize=5)
        axes.plot(percent.mean(), row, "D", color="tab:blue", markersize=9)
    lowest = min(min(values) for values in runs.values()) * 100
    axes.set(xlabel="top-1, %", title=title, xlim=(max(0.0, lowest - 10), 100))
    axes.set_yticks(range(len(runs)), list(runs))
    axes.grid(axis="x", color="0.9")
    axes.set_ylim(len(runs) - 0.5, -0.5)
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # no pyplot: no window system, no global state

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    write_atomic_by(path, lambda part: figure.savefig(part, dpi=120))
