"""Plots of scores of images with several labels, or with a number."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpt.plots import style
from vpt.plots.canvas import make_figure, save_figure, set_title
from vpt.plots.literal import literal

_MAX_LABEL = 40  # characters of the name of a class
_MAX_TICK_NAMES = 50  # names along an axis


def predicted_against_true(path: Path, numbers: NDArray[np.float64], name: str, title: str) -> None:
    """Plot predicted against true numbers, with the line on which they are equal.

    Args:
        path: Path of the picture.
        numbers: True and predicted number of each image, (n, 2).
        name: Name of the number.
        title: Title of the picture.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = make_figure(5, 5)
    axes = figure.subplots()
    axes.plot(*numbers.T, ".", alpha=0.5, color=style.BLUE)
    ends = (numbers.min(), numbers.max())
    axes.plot(ends, ends, color=style.GRAY, linewidth=1, linestyle="--", zorder=0, label="predicted = true")
    axes.legend(frameon=False)
    axes.set(xlabel=f"true {literal(name, _MAX_LABEL)}", ylabel=f"predicted {literal(name, _MAX_LABEL)}")
    axes.set_aspect("equal", adjustable="datalim")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(3))
        axis.set_major_formatter(FuncFormatter(style.format_tick))
    set_title(figure, title)
    save_figure(figure, path)


def class_scores(path: Path, scores: Mapping[str, float | None], xlabel: str, title: str) -> None:
    """Plot a score of each class, the highest first, of up to 50 classes by name.

    Args:
        path: Path of the picture.
        scores: Name of a class -> its score, between 0 and 1; None is left out.
        xlabel: Label of the score.
        title: Title of the picture.
    """
    known = sorted(((value, name) for name, value in scores.items() if value is not None), reverse=True)
    figure = make_figure(7, min(16, 1.5 + 0.28 * len(known)))
    axes = figure.subplots()
    axes.barh(range(len(known)), [100 * value for value, _ in known], color=style.BLUE)
    axes.set(xlabel=xlabel, xlim=(0, 100), ylim=(len(known) - 0.5, -0.5))
    if len(known) <= _MAX_TICK_NAMES:
        axes.set_yticks(range(len(known)), [literal(name, _MAX_LABEL) for _, name in known])
    else:
        axes.set_ylabel("rank of the class")
    set_title(figure, title)
    save_figure(figure, path)
