"""Plots of runs as picture files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.plots.canvas import make_figure, save_figure
from vpt.plots.literal import literal

MAX_NAMED_CLASSES = 20  # classes that colors and numbers can still tell apart
_MAX_LABEL = 40  # characters of the name of a class


def training_curves(
    path: Path,
    history: Sequence[Mapping[str, Any]],
    title: str,
    *,
    xlabel: str = "epoch",
    metric: str = "top-1",
    labels: tuple[str, str] = ("train", "val"),
) -> None:
    """Plot loss and metric by epoch, on train and on val.

    Args:
        path: Path of the picture.
        history: Metrics of each epoch, with the keys of metrics.jsonl. Metrics are between 0 and 1, and None on val
            without val images.
        title: Title of the picture.
        xlabel: Label of the horizontal axis. Default: "epoch".
        metric: Name of the metric. Default: "top-1".
        labels: Labels of the metric on train and on val.
    """
    figure = make_figure(9, 3.6)
    _draw_curves(figure.subplots(1, 2), history, xlabel, metric, labels)
    figure.suptitle(literal(title))
    save_figure(figure, path)


def _draw_curves(
    panels: Any, history: Sequence[Mapping[str, Any]], xlabel: str, metric: str, labels: tuple[str, str]
) -> None:
    left, right = panels
    for split, label in zip(("train", "val"), labels, strict=True):
        scored = [epoch for epoch in history if epoch[f"{split}_metric"] is not None]
        if scored:
            epochs = [epoch["epoch"] for epoch in scored]
            left.plot(epochs, [epoch[f"{split}_loss"] for epoch in scored])
            right.plot(epochs, [100 * epoch[f"{split}_metric"] for epoch in scored], label=label)
    left.set(xlabel=xlabel, ylabel="loss", yscale="log")
    right.set(xlabel=xlabel, ylabel=f"{metric}, %", ylim=(0, 101))
    right.legend(frameon=False)


def confusion_matrix(
    path: Path, counts: NDArray[np.int64], classes: Sequence[str], title: str, *, unit: str = "counts"
) -> None:
    """Plot a confusion matrix with normalized rows.

    Up to 20 classes have numbers: counts, or percentages of the row if they are asked for or counts are long.

    Args:
        path: Path of the picture.
        counts: Number of images or pixels by true and by predicted class, (classes, classes).
        classes: Names of the classes.
        title: Title of the picture.
        unit: Numbers in the cells, "counts" or "percent". Default: "counts".
    """
    side = min(5 + 0.28 * len(classes), 16)
    figure = make_figure(side, side)
    axes = figure.subplots()
    _draw_confusion(axes, counts, classes, unit)
    axes.set_title(literal(title))
    save_figure(figure, path)


def _draw_confusion(axes: Any, counts: NDArray[np.int64], classes: Sequence[str], unit: str = "counts") -> None:
    n, fractions = len(classes), counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if n <= 50:
        names = [literal(name, _MAX_LABEL) for name in classes]
        axes.set_xticks(range(n), names, rotation=90)
        axes.set_yticks(range(n), names)
    if n <= MAX_NAMED_CLASSES:
        show_counts = unit == "counts" and counts.max(initial=0) < 10_000
        for i, j in np.argwhere(counts if show_counts else fractions >= 0.005):
            text = str(counts[i, j]) if show_counts else f"{100 * fractions[i, j]:.0f}"
            axes.text(j, i, text, ha="center", va="center", color="white" if fractions[i, j] > 0.5 else "black")


def class_examples(path: Path, images: Mapping[str, Sequence[NDArray[np.uint8]]], title: str) -> None:
    """Plot images of each class, one row a class.

    Args:
        path: Path of the picture.
        images: Name of a class to its images, (height, width, 3).
        title: Title of the picture.
    """
    if not images:
        return
    columns = max(map(len, images.values()))
    figure = make_figure(1.5 * columns + 1.5, 1.6 * len(images) + 0.5)
    for row, (name, pictures) in zip(figure.subplots(len(images), columns, squeeze=False), images.items(), strict=True):
        row[0].set_title(literal(name, _MAX_LABEL), loc="left", fontsize="small")
        for axes in row:
            axes.set_axis_off()
        for axes, picture in zip(row, pictures, strict=False):
            axes.imshow(picture)
    figure.suptitle(literal(title), fontsize="medium")
    save_figure(figure, path)


def search_summary(
    path: Path,
    history: Sequence[Mapping[str, Any]],
    counts: NDArray[np.int64],
    classes: Sequence[str],
    mistakes: Sequence[tuple[NDArray[np.uint8], str]],
    title: str,
) -> None:
    """Plot the curve of the final training, the confusion matrix, and the most confident mistakes.

    Args:
        path: Path of the picture.
        history: Metrics of each epoch, as for `training_curves`; none where nothing was trained in epochs.
        counts: Number of images by true and by predicted class, (classes, classes).
        classes: Names of the classes.
        mistakes: Images (height, width, 3) with their titles.
        title: Title of the picture.
    """
    side = min(5 + 0.28 * len(classes), 16)
    heights = [3.0] * bool(history) + [side] + [2.2] * bool(mistakes)
    figure = make_figure(max(9, side), sum(heights))
    rows: Any = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if history:
        _draw_curves(next(rows).subplots(1, 2), history, "epoch", "top-1", ("train", "val"))
    _draw_confusion(next(rows).subplots(), counts, classes)
    if mistakes:
        panels = next(rows).subplots(1, len(mistakes), squeeze=False)[0]
        for axes, (image, text) in zip(panels, mistakes, strict=True):
            axes.imshow(image)
            axes.set_title(literal(text), fontsize="small")
            axes.set_axis_off()
    figure.suptitle(literal(title))
    save_figure(figure, path)


def method_comparison(path: Path, runs: Mapping[str, Sequence[float]], title: str) -> None:
    """Plot top-1 of several methods: a dot for each run, a diamond for the mean.

    Args:
        path: Path of the picture.
        runs: Method -> top-1 of each run, between 0 and 1.
        title: Title of the picture.
    """
    figure = make_figure(7, 1.2 + 0.55 * len(runs))
    axes = figure.subplots()
    for row, values in enumerate(runs.values()):
        percent = 100 * np.asarray(values)
        # No bars: the axis does not begin at 0, so a bar's length would mislead.
        axes.plot(percent, np.full(len(percent), row), "o", color="0.6", markersize=5)
        axes.plot(percent.mean(), row, "D", color="tab:blue", markersize=9)
    lowest = min(min(values) for values in runs.values()) * 100
    axes.set(xlabel="top-1, %", title=literal(title), xlim=(max(0.0, lowest - 10), 100))
    axes.set_yticks(range(len(runs)), list(map(literal, runs)))
    axes.grid(axis="x", color="0.9")
    axes.set_ylim(len(runs) - 0.5, -0.5)
    save_figure(figure, path)


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
    if not lines:
        return
    settings = list(dict.fromkeys(setting for line in lines.values() for setting in line))
    categorical = any(isinstance(setting, str) for setting in settings)
    figure = make_figure(7, 1.6 + 0.45 * len(settings)) if categorical else make_figure(6.4, 4.2)
    axes = figure.subplots()
    for index, (name, line) in enumerate(lines.items()):
        percent = [100 * np.asarray(values) for values in line.values()]
        means = [values.mean() for values in percent]
        stds = [values.std(ddof=1) if len(values) > 1 else np.nan for values in percent]  # nan: no bar is drawn
        if categorical:  # lines side by side, so that none hides another
            rows = [settings.index(setting) + 0.2 * (index - (len(lines) - 1) / 2) for setting in line]
            axes.errorbar(means, rows, xerr=stds, fmt="o", capsize=3, label=literal(name))
        else:
            axes.errorbar(list(map(float, line)), means, yerr=stds, fmt="o-", capsize=3, label=literal(name))
    counts = sorted({len(values) for line in lines.values() for values in line.values()})
    top1 = f"top-1, %: mean ± sd, n = {' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))}"
    axes.set_title(literal(title), fontsize="medium")
    axes.grid(axis="x" if categorical else "y", color="0.9")
    if categorical:
        axes.set(xlabel=top1, ylabel=xlabel, ylim=(len(settings) - 0.5, -0.5))
        axes.set_yticks(range(len(settings)), [literal(str(setting)) for setting in settings])
    else:
        numbers = list(map(float, settings))
        axes.set(xlabel=xlabel, ylabel=top1, xscale="log" if log_scale else "linear")
        axes.set_xticks(numbers, [f"{number:g}" for number in numbers], minor=False)
        axes.minorticks_off()
    if len(lines) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    save_figure(figure, path)


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
    columns = 1 + max(map(len, rows))
    figure = make_figure(3 * columns, 2.9 * len(rows))
    height, width = image.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    for (first, *rest), row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        first.imshow(image)
        low, high = min(map(np.min, row.values())), max(map(np.max, row.values()))
        for axes, (name, values) in zip(rest, row.items(), strict=False):
            axes.imshow(image.mean(2), cmap="gray", vmin=0, vmax=255)
            # Every patch as the square it is: smoothing would show more than is known.
            heatmap = axes.imshow(values, cmap="inferno", vmin=low, vmax=high, alpha=0.65, extent=extent)
            axes.set_title(literal(name), fontsize="medium")
        for axes in (first, *rest):
            axes.set_axis_off()
        figure.colorbar(heatmap, ax=rest, format="%.2g")
    figure.suptitle(literal(title))
    save_figure(figure, path)


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
    figure = make_figure(5.2 * len(panels) + 1.6, 5)
    present = np.unique(labels)
    colors = _class_colors(len(present))
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, coordinates) in zip(row, panels.items(), strict=True):
        for color, label in zip(colors, present, strict=True):
            axes.plot(*coordinates[labels == label].T, ".", color=color, label=literal(classes[label], _MAX_LABEL))
        # No ticks: axes of t-SNE have no unit.
        axes.set(title=literal(title), xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")  # both frames of one size, distances as they are
    if len(present) <= MAX_NAMED_CLASSES:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    else:
        figure.suptitle(f"{len(present)} classes, too many to be named")
    save_figure(figure, path)


def _class_colors(count: int) -> list[tuple[float, ...]]:
    from matplotlib import colormaps

    if count > MAX_NAMED_CLASSES:
        return [colormaps["turbo"](i / (count - 1)) for i in range(count)]
    return [colormaps["tab10" if count <= 10 else "tab20"](i) for i in range(count)]
