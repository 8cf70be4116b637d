"""The picture of a comparison of methods: example images, curves of training, and the score of each run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.plots import style
from vpt.plots.canvas import make_figure, save_figure, set_title


def method_comparison(
    path: Path,
    runs: Mapping[str, Sequence[float]],
    title: str,
    *,
    curves: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    examples: Mapping[str, NDArray[np.uint8]] | None = None,
    methods: Mapping[str, str] | None = None,
) -> None:
    """Plot example images above, accuracy on the training images by epoch on the left, and test top-1 on the right.

    A small gray dot is a run; the mark of a method is its mean.

    Args:
        path: Path of the picture.
        runs: Method -> top-1 of each run, between 0 and 1.
        title: Title of the picture.
        curves: Method -> points of its curve: the part of the epochs that is done and the accuracy, between 0 and 1.
            Default: no curves.
        examples: Name of a class -> an image (height, width, 3). Default: no images.
        methods: Name in `runs` -> text of the method, which chooses color and marker. Default: the names are the texts.
    """
    heights = [1.6] * bool(examples) + [1.6 + 0.45 * len(runs)]
    width = 11 if curves else 7
    figure = make_figure(width, sum(heights))
    rows: Any = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if examples:
        panels = next(rows).subplots(1, len(examples), squeeze=False)[0]
        for axes, (name, image) in zip(panels, examples.items(), strict=True):
            axes.imshow(image)
            axes.set_title(style.wrap(name, width / len(examples), points=9, lines=2), fontsize=9)
            axes.set_axis_off()
    *left, right = np.ravel(next(rows).subplots(1, 1 + bool(curves)))
    styles = style.method_styles({name: (methods or {}).get(name, name) for name in runs})
    for axes in left:
        _draw_curves(axes, curves or {}, styles)
    _draw_scores(right, runs, styles)
    set_title(figure, title)
    save_figure(figure, path)


def _draw_curves(
    axes: Any, curves: Mapping[str, Sequence[tuple[float, float]]], styles: Mapping[str, dict[str, Any]]
) -> None:
    for name, points in curves.items():
        axes.plot(*(100 * np.array(points)).T, **styles[name], markevery=0.15, label=style.wrap(name, 3))
    axes.set(xlabel="epochs done, %", ylabel="top-1 on the training images, %")
    axes.legend(frameon=False, fontsize=9)


def _draw_scores(axes: Any, runs: Mapping[str, Sequence[float]], styles: Mapping[str, dict[str, Any]]) -> None:
    for row, (name, values) in enumerate(runs.items()):
        percent = 100 * np.asarray(values)
        # No bars: the axis does not begin at 0, so a bar's length would mislead.
        axes.plot(percent, np.full(len(percent), row), "o", color=style.GRAY, markersize=4, alpha=0.6)
        axes.plot(percent.mean(), row, **{**styles[name], "linestyle": "none"}, markersize=9)
    axes.set(xlabel="top-1 on test, %: each run, and the mean")
    axes.set_yticks(range(len(runs)), [style.wrap(name, 2.4, lines=2) for name in runs])
    axes.grid(axis="x", color=style.RULE)
    axes.set_ylim(len(runs) - 0.5, -0.5)
