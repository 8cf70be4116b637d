"""Plots of runs as picture files. They need matplotlib."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vpt.core.io import write_atomic_with
from vpt.errors import SpecError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INSTALL_HINT = "they need matplotlib, which is not installed; pip install matplotlib"
MATPLOTLIB_MISSING = f"pictures are left out: {_INSTALL_HINT}"
MAX_NAMED_CLASSES = 20  # classes that colors can still tell apart


def is_available() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def check_plot_path(path: Path) -> None:
    """Check the file name of a picture before any work is done.

    Args:
        path: Path of the picture.

    Raises:
        SpecError: The name ends in neither .png nor .svg.
    """
    if path.suffix.casefold() not in (".png", ".svg"):
        raise SpecError(f"{path} is not the name of a picture; end it in .png or .svg")


def require_plots(path: Path) -> None:
    """Check that a picture can be drawn.

    Args:
        path: Path of the picture.

    Raises:
        SpecError: The name ends in neither .png nor .svg, or matplotlib is not installed.
    """
    check_plot_path(path)
    if not is_available():
        raise SpecError(f"pictures cannot be drawn here: {_INSTALL_HINT}")


class EpochRecord(Protocol):
    """The metrics of an epoch that a curve shows."""

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 1."""

    @property
    def train_loss(self) -> float:
        """Mean loss on train."""

    @property
    def train_metric(self) -> float:
        """Metric on train, between 0 and 1."""

    @property
    def val_loss(self) -> float | None:
        """Mean loss on val; None without val images."""

    @property
    def val_metric(self) -> float | None:
        """Metric on val, between 0 and 1; None without val images."""


def training_curves(
    path: Path,
    history: Sequence[EpochRecord],
    title: str,
    *,
    xlabel: str = "epoch",
    metric: str = "top-1",
    labels: tuple[str, str] = ("train", "val"),
) -> None:
    """Plot loss and metric by epoch, on train and on val.

    Args:
        path: Path of the picture.
        history: Metrics of each epoch.
        title: Title of the picture.
        xlabel: Label of the horizontal axis. Default: "epoch".
        metric: Name of the metric. Default: "top-1".
        labels: Labels of the metric on train and on val.
    """
    if not is_available():
        return
    figure = _figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    epochs = [epoch.epoch for epoch in history]
    left.plot(epochs, [epoch.train_loss for epoch in history])
    right.plot(epochs, [100 * epoch.train_metric for epoch in history], label=labels[0])
    if history and history[0].val_metric is not None:
        left.plot(epochs, [epoch.val_loss for epoch in history])
        right.plot(epochs, [100 * (epoch.val_metric or 0) for epoch in history], label=labels[1])
    left.set(xlabel=xlabel, ylabel="loss", yscale="log")
    right.set(xlabel=xlabel, ylabel=f"{metric}, %", ylim=(0, 101))
    right.legend(frameon=False)
    figure.suptitle(title)
    _save(figure, path)


def confusion_matrix(path: Path, counts: NDArray[np.int64], classes: Sequence[str], title: str) -> None:
    """Plot a confusion matrix with normalized rows.

    Up to 20 classes have numbers: counts, or percentages of the row where counts are long.

    Args:
        path: Path of the picture.
        counts: Number of images or pixels by true and by predicted class, (classes, classes).
        classes: Names of the classes.
        title: Title of the picture.
    """
    if not is_available():
        return
    n = len(classes)
    side = min(5 + 0.28 * n, 16)
    figure = _figure(side, side)
    axes = figure.subplots()
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if n <= 50:
        axes.set_xticks(range(n), classes, rotation=90)
        axes.set_yticks(range(n), classes)
    if n <= 20:
        show_counts = counts.max(initial=0) < 10_000
        for i, j in np.argwhere(counts if show_counts else fractions >= 0.005):
            axes.text(
                j,
                i,
                str(counts[i, j]) if show_counts else f"{100 * fractions[i, j]:.0f}",
                ha="center",
                va="center",
                color="white" if fractions[i, j] > 0.5 else "black",
            )
    _save(figure, path)


def method_comparison(path: Path, runs: Mapping[str, Sequence[float]], title: str) -> None:
    """Plot top-1 of several methods: a dot for each run, a diamond for the mean.

    Args:
        path: Path of the picture.
        runs: Method -> top-1 of each run, between 0 and 1.
        title: Title of the picture.
    """
    if not is_available():
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


def sweep(
    path: Path,
    lines: Mapping[str, Mapping[str | float, Sequence[float]]],
    xlabel: str,
    title: str,
    *,
    log_scale: bool = False,
) -> None:
    """Plot mean and standard deviation of top-1 along an axis of numbers, or of names.

    Args:
        path: Path of the picture.
        lines: Line -> setting -> top-1 of each run, between 0 and 1.
        xlabel: Label of the axis of settings.
        title: Title of the picture.
        log_scale: Numbers are on a logarithmic scale. Default: False.
    """
    if not is_available() or not lines:
        return
    settings = list(dict.fromkeys(setting for line in lines.values() for setting in line))
    categorical = any(isinstance(setting, str) for setting in settings)
    figure = _figure(7, 1.6 + 0.45 * len(settings)) if categorical else _figure(6.4, 4.2)
    axes = figure.subplots()
    for index, (name, line) in enumerate(lines.items()):
        percent = [100 * np.asarray(values) for values in line.values()]
        means = [values.mean() for values in percent]
        stds = [values.std(ddof=1) if len(values) > 1 else np.nan for values in percent]  # nan: no bar is drawn
        if categorical:  # lines side by side, so that none hides another
            rows = [settings.index(setting) + 0.2 * (index - (len(lines) - 1) / 2) for setting in line]
            axes.errorbar(means, rows, xerr=stds, fmt="o", capsize=3, label=name)
        else:
            axes.errorbar(list(map(float, line)), means, yerr=stds, fmt="o-", capsize=3, label=name)
    counts = sorted({len(values) for line in lines.values() for values in line.values()})
    top1 = f"top-1, %: mean ± sd, n = {' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))}"
    axes.set_title(title, fontsize="medium")
    axes.grid(axis="x" if categorical else "y", color="0.9")
    if categorical:
        axes.set(xlabel=top1, ylabel=xlabel, ylim=(len(settings) - 0.5, -0.5))
        axes.set_yticks(range(len(settings)), list(map(str, settings)))
    else:
        axes.set(xlabel=xlabel, ylabel=top1, xscale="log" if log_scale else "linear")
        axes.set_xticks(list(map(float, settings)), [f"{setting:g}" for setting in map(float, settings)], minor=False)
        axes.minorticks_off()
    if len(lines) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    _save(figure, path)


def heatmaps(
    path: Path, image: NDArray[np.uint8], rows: Sequence[Mapping[str, NDArray[np.float64]]], title: str
) -> None:
    """Plot maps over an image, beside it.

    Args:
        path: Path of the picture.
        image: Image, (height, width, 3).
        rows: Rows of maps by name, (rows of patches, columns of patches); each row has one scale.
        title: Title of the picture.
    """
    if not is_available():
        return
    check_plot_path(path)
    columns = 1 + max(map(len, rows))
    figure = _figure(3 * columns, 2.9 * len(rows))
    height, width = image.shape[:2]
    for (first, *rest), row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        first.imshow(image)
        low, high = min(map(np.min, row.values())), max(map(np.max, row.values()))
        for axes, (name, values) in zip(rest, row.items(), strict=False):
            axes.imshow(image.mean(2), cmap="gray", vmin=0, vmax=255)
            # Every patch as the square it is: smoothing would show more than is known.
            heatmap = axes.imshow(
                values, cmap="inferno", vmin=low, vmax=high, alpha=0.65, extent=(-0.5, width - 0.5, height - 0.5, -0.5)
            )
            axes.set_title(name, fontsize="medium")
        for axes in (first, *rest):
            axes.set_axis_off()
        figure.colorbar(heatmap, ax=rest, format="%.2g")
    figure.suptitle(title)
    _save(figure, path)


def scatter(
    path: Path, panels: Mapping[str, NDArray[np.float64]], labels: NDArray[np.int64], classes: Sequence[str]
) -> None:
    """Plot points side by side, colored by class; up to 20 classes are named.

    Args:
        path: Path of the picture.
        panels: Title -> coordinates, (n, 2).
        labels: Class of each point, (n,).
        classes: Names of the classes.
    """
    if not is_available():
        return
    check_plot_path(path)
    figure = _figure(5.2 * len(panels) + 1.6, 5)
    present = np.unique(labels)
    colors = _class_colors(len(present))
    for axes, (title, coordinates) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for color, label in zip(colors, present, strict=True):
            axes.plot(*coordinates[labels == label].T, ".", color=color, label=classes[label])
        # No ticks: axes of t-SNE have no unit.
        axes.set(title=title, xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")  # both frames of one size, distances as they are
    if len(present) <= MAX_NAMED_CLASSES:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    else:
        figure.suptitle(f"{len(present)} classes, too many to be named")
    _save(figure, path)


def _class_colors(count: int) -> list[tuple[float, ...]]:
    from matplotlib import colormaps

    if count > MAX_NAMED_CLASSES:
        return [colormaps["turbo"](i / (count - 1)) for i in range(count)]
    return [colormaps["tab10" if count <= 10 else "tab20"](i) for i in range(count)]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # no pyplot: no window system, no global state

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    write_atomic_with(path, lambda tmp: figure.savefig(tmp, dpi=120))
