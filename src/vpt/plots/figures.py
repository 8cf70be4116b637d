"""Pictures of a run, for people who would rather look. They need matplotlib (`pip install "vpt[plots]"`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vpt.core.io import write_atomic_by
from vpt.errors import SpecError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NEEDED = 'they need matplotlib; pip install "vpt[plots]"'
MISSING = f"pictures are left out: {_NEEDED}"
NAMED = 20  # classes that colours can still tell apart


def available() -> bool:
    """Whether pictures can be drawn here."""
    return importlib.util.find_spec("matplotlib") is not None


def check_name(path: Path) -> None:
    """Raise SpecError for a file name that stands for no kind of picture, before any work is done."""
    if path.suffix.casefold() not in (".png", ".svg"):
        raise SpecError(f"{path} is no name of a picture; it must end in .png or .svg")


def demand(path: Path) -> None:
    """The same for a command whose whole product is this picture: raises SpecError, too, where none can be drawn."""
    check_name(path)
    if not available():
        raise SpecError(f"pictures cannot be drawn here: {_NEEDED}")


class EpochRecord(Protocol):
    """The figures of one epoch that a curve shows."""

    @property
    def epoch(self) -> int: ...
    @property
    def train_loss(self) -> float: ...
    @property
    def train_top1(self) -> float: ...
    @property
    def val_loss(self) -> float | None: ...
    @property
    def val_top1(self) -> float | None: ...


def curve(
    path: Path,
    history: Sequence[EpochRecord],
    title: str,
    *,
    x: str = "epoch",
    score: str = "top-1",
    names: tuple[str, str] = ("train", "val"),
) -> None:
    """Loss and score by epoch, for train and, where there is one, val. names: what the two lines of scores are."""
    if not available():
        return
    figure = _figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    epochs = [epoch.epoch for epoch in history]
    left.plot(epochs, [epoch.train_loss for epoch in history])
    right.plot(epochs, [100 * epoch.train_top1 for epoch in history], label=names[0])
    if history and history[0].val_top1 is not None:
        left.plot(epochs, [epoch.val_loss for epoch in history])
        right.plot(epochs, [100 * (epoch.val_top1 or 0) for epoch in history], label=names[1])
    left.set(xlabel=x, ylabel="loss", yscale="log")
    right.set(xlabel=x, ylabel=f"{score}, %", ylim=(0, 101))
    right.legend(frameon=False)
    figure.suptitle(title)
    _save(figure, path)


def confusion(path: Path, counts: NDArray[np.int64], classes: Sequence[str], title: str) -> None:
    """The confusion matrix, rows normalised to what is of the true class. Up to 20 classes have numbers: counts, or
    shares of the row in % where counts are long, as those of pixels are.
    """
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
        short = counts.max(initial=0) < 10_000
        for i, j in np.argwhere(counts if short else shares >= 0.005):
            axes.text(
                j,
                i,
                str(counts[i, j]) if short else f"{100 * shares[i, j]:.0f}",
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


def series(
    path: Path,
    lines: Mapping[str, Mapping[str | float, Sequence[float]]],
    xlabel: str,
    title: str,
    *,
    log: bool = False,
) -> None:
    """Top-1 along an axis: mean and standard deviation of the runs. Names stand below each other, numbers on a scale.

    lines: line -> place -> top-1 of its runs, between 0 and 1. log: numbers on a logarithmic scale.
    """
    if not available() or not lines:
        return
    places = list(dict.fromkeys(place for line in lines.values() for place in line))
    named = any(isinstance(place, str) for place in places)
    figure = _figure(7, 1.6 + 0.45 * len(places)) if named else _figure(6.4, 4.2)
    axes = figure.subplots()
    for index, (name, line) in enumerate(lines.items()):
        percent = [100 * np.asarray(values) for values in line.values()]
        means = [values.mean() for values in percent]
        spreads = [values.std(ddof=1) if len(values) > 1 else 0.0 for values in percent]
        if named:  # lines side by side, so that none hides another
            rows = [places.index(place) + 0.2 * (index - (len(lines) - 1) / 2) for place in line]
            axes.errorbar(means, rows, xerr=spreads, fmt="o", capsize=3, label=name)
        else:
            axes.errorbar(list(map(float, line)), means, yerr=spreads, fmt="o-", capsize=3, label=name)
    counts = sorted({len(values) for line in lines.values() for values in line.values()})
    top1 = f"top-1, %: mean ± sd, n = {' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))}"
    axes.set_title(title, fontsize="medium")
    axes.grid(axis="x" if named else "y", color="0.9")
    if named:
        axes.set(xlabel=top1, ylabel=xlabel, ylim=(len(places) - 0.5, -0.5))
        axes.set_yticks(range(len(places)), list(map(str, places)))
    else:
        axes.set(xlabel=xlabel, ylabel=top1, xscale="log" if log else "linear")
        axes.set_xticks(list(map(float, places)), [f"{place:g}" for place in map(float, places)], minor=False)
        axes.minorticks_off()
    if len(lines) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    _save(figure, path)


def maps(path: Path, image: NDArray[np.uint8], rows: Sequence[Mapping[str, NDArray[np.float64]]], title: str) -> None:
    """Maps over an image (height, width, 3), beside it. Each row has one scale. rows: name -> (h, w)."""
    if not available():
        return
    check_name(path)
    columns = 1 + max(map(len, rows))
    figure = _figure(3 * columns, 2.9 * len(rows))
    height, width = image.shape[:2]
    for (first, *rest), row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        first.imshow(image)
        low, high = min(map(np.min, row.values())), max(map(np.max, row.values()))
        for axes, (name, values) in zip(rest, row.items(), strict=False):
            axes.imshow(image.mean(2), cmap="gray", vmin=0, vmax=255)
            # Every patch as the square it is: smoothing would show more than is known.
            shades = axes.imshow(
                values, cmap="inferno", vmin=low, vmax=high, alpha=0.65, extent=(-0.5, width - 0.5, height - 0.5, -0.5)
            )
            axes.set_title(name, fontsize="medium")
        for axes in (first, *rest):
            axes.set_axis_off()
        figure.colorbar(shades, ax=rest, format="%.2g")
    figure.suptitle(title)
    _save(figure, path)


def points(
    path: Path, panels: Mapping[str, NDArray[np.float64]], labels: NDArray[np.int64], classes: Sequence[str]
) -> None:
    """Points in the plane side by side, coloured by class; named up to 20 classes. panels: title -> (n, 2)."""
    if not available():
        return
    check_name(path)
    figure = _figure(5.2 * len(panels) + 1.6, 5)
    used = np.unique(labels)
    colours = _colours(len(used))
    for axes, (title, places) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for colour, label in zip(colours, used, strict=True):
            axes.plot(*places[labels == label].T, ".", color=colour, label=classes[label])
        # No ticks: axes of t-SNE have no unit.
        axes.set(title=title, xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")  # both frames of one size, distances as they are
    if len(used) <= NAMED:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    else:
        figure.suptitle(f"{len(used)} classes, too many to be named")
    _save(figure, path)


def _colours(count: int) -> list[tuple[float, ...]]:
    from matplotlib import colormaps

    if count > NAMED:
        return [colormaps["turbo"](i / (count - 1)) for i in range(count)]
    return [colormaps["tab10" if count <= 10 else "tab20"](i) for i in range(count)]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # no pyplot: no window system, no global state

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    write_atomic_by(path, lambda part: figure.savefig(part, dpi=120))
