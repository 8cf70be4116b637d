"""Charts of one run for an HTML page: lines by epoch, and the reliability of confidences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.core.metrics import PLAIN_METRICS
from vpt.core.text import begin_sentence
from vpt.plots import style
from vpt.plots.inline_svg import RULE, chart_style, make_axes, to_svg
from vpt.plots.metric_lines import metric_lines

_SIZE = (3.4, 2.5)  # inches: the width of a phone
_FRAME = (0.21, 0.17, 0.75, 0.78)


def line_chart(
    title: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    ylabel: str,
    *,
    xlabel: str = "epoch",
    log: bool = False,
) -> str:
    """Return a chart of one or two lines.

    Args:
        title: Accessible name of the chart.
        lines: Name of a line -> its points.
        ylabel: Label of the vertical axis, with its unit.
        xlabel: Label of the horizontal axis. Default: "epoch".
        log: True for a logarithmic vertical axis. Default: False.

    Returns:
        An SVG element.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with chart_style(title):
        figure, axes = make_axes(*_SIZE, _FRAME)
        for (name, points), look in zip(lines.items(), style.SPLITS, strict=False):
            every = max(1, len(points) // 10)  # dots close together would hide the dash
            axes.plot(*zip(*points, strict=True), **look, markersize=4, markevery=every, label=style.wrap(name, 2))
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        if log:
            style.set_log_scale(axes.yaxis)
        else:
            axes.yaxis.set_major_formatter(FuncFormatter(style.format_tick))
        if len(lines) > 1:
            axes.legend(frameon=False)
        return to_svg(figure, title)


def history_charts(
    history: Sequence[Mapping[str, Any]], labels: Mapping[str, str], xlabel: str = "epoch"
) -> list[tuple[str, str]]:
    """Return a chart of the loss and one of each metric, on train and on val.

    Args:
        history: Metrics of each epoch, with the keys of metrics.jsonl.
        labels: Name of a metric -> its label.
        xlabel: Label of the horizontal axis. Default: "epoch".

    Returns:
        Headings and SVG elements; none for an empty history.
    """
    losses = {
        split: [(epoch["epoch"], epoch[f"{split}_loss"]) for epoch in history if epoch[f"{split}_loss"] is not None]
        for split in ("train", "val")
    }
    charts = []
    for name, lines in {"loss": losses, **metric_lines(history)}.items():
        label, scale = labels.get(name, name), 1 if name == "loss" or name in PLAIN_METRICS else 100
        drawn = {split: [(x, scale * y) for x, y in points] for split, points in lines.items() if points}
        if drawn:
            heading, ylabel = f"{begin_sentence(label)} by {xlabel}", f"{label}, %" if scale == 100 else label
            charts.append((heading, line_chart(heading, drawn, ylabel, xlabel=xlabel, log=name == "loss")))
    return charts


def reliability_diagram(title: str, bins: NDArray[np.float64]) -> str:
    """Return the share of right predictions by confidence, with the line of perfect calibration.

    Args:
        title: Accessible name of the chart.
        bins: Number of predictions, sum of their confidences and number of right ones of each bin of equal width,
            (bins, 3).

    Returns:
        An SVG element.
    """
    with chart_style(title):
        figure, axes = make_axes(*_SIZE, _FRAME)
        count, _, correct = bins.T
        filled, width = count > 0, 100 / len(bins)
        centers = width * (np.arange(len(bins)) + 0.5)
        heights = 100 * correct[filled] / count[filled]
        axes.bar(centers[filled], heights, 0.85 * width, color=style.BLUE, label="measured")
        axes.plot((0, 100), (0, 100), color=style.VERMILLION, linestyle="--", label="perfect")
        axes.set(xlabel="confidence, %", ylabel="right predictions, %", xlim=(0, 100), ylim=(0, 101))
        axes.grid(True, axis="y", color=RULE)
        axes.legend(frameon=False)
        return to_svg(figure, title)
