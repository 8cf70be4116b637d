"""Plots of runs as picture files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.core.metrics import PLAIN_METRICS
from vpt.plots import style
from vpt.plots.canvas import make_figure, save_figure, set_title
from vpt.plots.literal import literal
from vpt.plots.metric_lines import metric_lines

MAX_NAMED_CLASSES = 20  # classes that markers and numbers can still tell apart
_MAX_LABEL = 40  # characters of the name of a class
_MAX_TICK_NAMES = 50  # names along an axis


def training_curves(
    path: Path,
    history: Sequence[Mapping[str, Any]],
    title: str,
    *,
    xlabel: str = "epoch",
    labels: Mapping[str, str] | None = None,
) -> None:
    """Plot the loss and each metric by epoch, on train and on val.

    Args:
        path: Path of the picture.
        history: Metrics of each epoch, with the keys of metrics.jsonl.
        title: Title of the picture.
        xlabel: Label of the horizontal axis. Default: "epoch".
        labels: Name of a metric -> its label. Default: labels are the names.
    """
    num_panels = 1 + len(metric_lines(history))
    figure = make_figure(4.5 * num_panels, 3.6)
    _draw_curves(figure.subplots(1, num_panels), history, xlabel, labels or {})
    set_title(figure, title)
    save_figure(figure, path)


def _draw_curves(panels: Any, history: Sequence[Mapping[str, Any]], xlabel: str, labels: Mapping[str, str]) -> None:
    from matplotlib.ticker import MaxNLocator

    losses = {
        split: [(epoch["epoch"], epoch[f"{split}_loss"]) for epoch in history if epoch[f"{split}_loss"] is not None]
        for split in ("train", "val")
    }
    for axes, (name, lines) in zip(panels, {"loss": losses, **metric_lines(history)}.items(), strict=True):
        is_percentage = name != "loss" and name not in PLAIN_METRICS
        for split, look in zip(("train", "val"), style.SPLITS, strict=True):
            if points := lines.get(split):
                every = max(1, len(points) // 10)  # dots close together would hide the dash
                xs, ys = zip(*points, strict=True)
                values = [100 * y for y in ys] if is_percentage else ys
                axes.plot(xs, values, **look, markersize=4, markevery=every, label=split)
        label = labels.get(name, name)
        axes.set(xlabel=xlabel, ylabel=f"{label}, %" if is_percentage else label)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        if len(history) == 1:
            axes.set_xlim(history[0]["epoch"] - 1, history[0]["epoch"] + 1)
        if name == "loss":
            style.set_log_scale(axes.yaxis)
            continue
        if is_percentage:
            axes.set_ylim(0, 101)
        axes.legend(frameon=False)


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
    side = _confusion_side(classes)
    figure = make_figure(side + (len(classes) > MAX_NAMED_CLASSES), side)
    _draw_confusion(figure.subplots(), counts, classes, unit)
    set_title(figure, title)
    save_figure(figure, path)


def _confusion_side(classes: Sequence[str]) -> float:
    """Return the side of a confusion matrix in inches, its names included."""
    longest = min(_MAX_LABEL, max(map(len, classes))) if len(classes) <= _MAX_TICK_NAMES else 0
    return min(4.5 + 0.28 * len(classes) + 0.07 * longest, 16)


def _draw_confusion(axes: Any, counts: NDArray[np.int64], classes: Sequence[str], unit: str = "counts") -> None:
    n, fractions = len(classes), counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shares = axes.imshow(100 * fractions, cmap=style.SHARES, vmin=0, vmax=100)
    show_counts = unit == "counts" and counts.max(initial=0) < 10_000
    if n <= _MAX_TICK_NAMES:
        names = [literal(name, _MAX_LABEL) for name in classes]
        axes.set_xticks(range(n), names, rotation=90)
        axes.set_yticks(range(n), names)
        axes.set(xlabel="predicted class", ylabel="true class")
    else:
        axes.set(xlabel="number of the predicted class", ylabel="number of the true class")
    if n <= MAX_NAMED_CLASSES:
        axes.set_title("color: share of the row" if show_counts else "numbers and color: % of the row", fontsize=9)
        for i, j in np.argwhere(counts if show_counts else fractions >= 0.005):
            text = str(counts[i, j]) if show_counts else f"{100 * fractions[i, j]:.0f}"
            axes.text(j, i, text, ha="center", va="center", color="white" if fractions[i, j] > 0.5 else style.INK)
    else:
        axes.figure.colorbar(shares, ax=axes, shrink=0.5, label="share of the true class, %")


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
    figure = make_figure(max(4, 1.5 * columns + 1.5), 1.6 * len(images) + 0.5)
    for row, (name, pictures) in zip(figure.subplots(len(images), columns, squeeze=False), images.items(), strict=True):
        row[0].set_title(style.wrap(name, max(3, 1.5 * columns), points=9, lines=1), loc="left", fontsize=9)
        for axes in row:
            axes.set_axis_off()
        for axes, picture in zip(row, pictures, strict=False):
            axes.imshow(picture)
    set_title(figure, title)
    save_figure(figure, path)


def search_summary(
    path: Path,
    history: Sequence[Mapping[str, Any]],
    counts: NDArray[np.int64],
    classes: Sequence[str],
    mistakes: Sequence[tuple[NDArray[np.uint8], str]],
    title: str,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Plot the curve of the final training, the confusion matrix, and the most confident mistakes.

    Args:
        path: Path of the picture.
        history: Metrics of each epoch, as for `training_curves`; none where nothing was trained in epochs.
        counts: Number of images by true and by predicted class, (classes, classes).
        classes: Names of the classes.
        mistakes: Images (height, width, 3) with their titles.
        title: Title of the picture.
        labels: Name of a metric -> its label. Default: labels are the names.
    """
    side = _confusion_side(classes)
    heights = [3.0] * bool(history) + [side] + [2.6] * bool(mistakes)
    width = max(9, side)
    figure = make_figure(width, sum(heights))
    rows: Any = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if history:
        num_panels = 1 + len(metric_lines(history))
        _draw_curves(next(rows).subplots(1, num_panels), history, "epoch", labels or {})
    _draw_confusion(next(rows).subplots(), counts, classes)
    if mistakes:
        panels = next(rows).subplots(1, len(mistakes), squeeze=False)[0]
        for axes, (image, text) in zip(panels, mistakes, strict=True):
            axes.imshow(image)
            names = [style.wrap(line, width / len(mistakes), points=9, lines=2) for line in text.split("\n")]
            axes.set_title("\n".join(names), fontsize=9)
            axes.set_axis_off()
    set_title(figure, title)
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
    for index, ((name, line), look) in enumerate(zip(lines.items(), style.series_styles(len(lines)), strict=True)):
        look |= {"capsize": 3, "label": style.wrap(name, 2)}
        percent = [100 * np.asarray(values) for values in line.values()]
        means = [values.mean() for values in percent]
        stds = [values.std(ddof=1) if len(values) > 1 else np.nan for values in percent]  # nan: no bar is drawn
        if categorical:  # lines side by side, so that none hides another
            rows = [settings.index(setting) + 0.2 * (index - (len(lines) - 1) / 2) for setting in line]
            axes.errorbar(means, rows, xerr=stds, linestyle="none", **look)
        else:
            axes.errorbar(list(map(float, line)), means, yerr=stds, **look)
    counts = sorted({len(values) for line in lines.values() for values in line.values()})
    top1 = f"top-1, %: mean ± sd, n = {' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))}"
    set_title(figure, title)
    axes.grid(axis="x" if categorical else "y", color=style.RULE)
    if categorical:
        axes.set(xlabel=top1, ylabel=xlabel, ylim=(len(settings) - 0.5, -0.5))
        axes.set_yticks(range(len(settings)), [style.wrap(str(setting), 2.4, lines=2) for setting in settings])
    else:
        numbers = list(map(float, settings))
        axes.set(xlabel=xlabel, ylabel=top1, xscale="log" if log_scale else "linear")
        axes.set_xticks(numbers, list(map(style.format_tick, numbers)), minor=False)
        axes.minorticks_off()
    if len(lines) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    save_figure(figure, path)


def scatter(
    path: Path,
    panels: Mapping[str, NDArray[np.float64]],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    title: str,
) -> None:
    """Plot points side by side, with a color and a marker for each class; up to 20 classes are named.

    Args:
        path: Path of the picture.
        panels: Title -> coordinates, (n, 2).
        labels: Class of each point, (n,).
        classes: Names of the classes.
        title: Title of the picture.
    """
    width = 5.2 * len(panels) + 1.6
    figure = make_figure(width, 5.2)
    present = np.unique(labels)
    styles = dict(zip(present.tolist(), style.series_styles(len(present)), strict=True))
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, coordinates) in zip(row, panels.items(), strict=True):
        for label, look in styles.items():
            points = coordinates[labels == label].T
            axes.plot(*points, linestyle="none", markersize=5, **look, label=literal(classes[label], _MAX_LABEL))
        # No ticks: axes of t-SNE have no unit.
        axes.set(title=style.wrap(name, 4, points=12), xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")  # both frames of one size, distances as they are
    if len(present) <= MAX_NAMED_CLASSES:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    else:
        title += f"; {len(present)} classes, too many to be named"
    set_title(figure, title)
    save_figure(figure, path)
