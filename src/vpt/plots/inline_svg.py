"""Charts as SVG elements for an HTML page. The page sets the color of text and lines: one chart serves light and dark.

A page defines the CSS variables --ink and --rule. Marks have colors of `vpt.plots.style` that both papers show well.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpt.core.text import printable
from vpt.plots import style
from vpt.plots.literal import literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colors that matplotlib writes, here and by chart.mplstyle, and that a CSS variable of the page replaces.
RULE = "#030303"
_CSS_VARIABLES = {"#010101": "--ink", style.INK: "--ink", RULE: "--rule"}
_IDS = re.compile(r' id="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|PathCollection)_\d+"')
# What else matplotlib writes and a page does not need: rotations by nothing, style sheets, its list of fonts.
_CLUTTER = re.compile(r' transform="rotate\(-0 [^)]*\)"|<defs>\s*<style.*?</style>\s*</defs>\s*', re.DOTALL)
_FONTS = re.compile(r"font-family: [^;\"]+")
_POINTS_PER_INCH = 72
_CHAR_WIDTH = 5.6  # points, roughly
_MAX_LABEL_CHARS = 17


def difference_bars(title: str, values: Mapping[str, float], limit: float) -> str:
    """Return a bar chart with one bar a task, to the right of zero for a positive value.

    Args:
        title: Accessible name of the chart.
        values: Task -> difference in percentage points.
        limit: Largest absolute difference of all charts of the page, which gives them one scale.

    Returns:
        A bar chart with one bar a task, to the right of zero for a positive value.
    """
    with chart_style(title):
        figure, axes = make_axes(3.4, 0.3 + 0.2 * len(values), (0.36, 0.02, 0.48, 0.96))
        rows = range(len(values))
        colors = [style.BLUE if value >= 0 else style.VERMILLION for value in values.values()]
        axes.barh(rows, list(values.values()), height=0.7, color=colors)
        axes.axvline(0, color=RULE, linewidth=1)
        axes.set(xlim=(-(limit or 1), limit or 1), ylim=(len(values) - 0.4, -0.6), xticks=[])
        axes.set_yticks(rows, [literal(_shorten(task)) for task in values])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for row, value in zip(rows, values.values(), strict=True):
            axes.text(1.3, row, f"{value:+.2f}", ha="right", va="center", transform=axes.get_yaxis_transform())
        return to_svg(figure, title)


def labeled_scatter(
    title: str,
    points: Mapping[str, tuple[float, float]],
    metric: str = "top-1",
    methods: Mapping[str, str] | None = None,
) -> str:
    """Return a chart of a metric against the number of trained parameters, with a named mark for each method.

    Args:
        title: Accessible name of the chart.
        points: Method -> trained parameters, and the metric in percent.
        metric: Name of the metric. Default: "top-1".
        methods: Name in `points` -> text of the method, which chooses color and marker. Default: the names are the
            texts.

    Returns:
        The chart.
    """
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator

    with chart_style(title):
        figure, axes = make_axes(6.6, 3.8, (0.09, 0.14, 0.68, 0.82))
        xs, ys = zip(*points.values(), strict=True)
        low = math.floor(math.log10(min(xs)))
        high = max(math.ceil(math.log10(max(xs))), low + 1)
        margin = max(0.08 * (max(ys) - min(ys)), 0.2)
        axes.set(xscale="log", xlabel="trained parameters", ylabel=f"{metric}, %")
        axes.set(xlim=(10.0**low, 10.0**high), ylim=(min(ys) - margin, max(ys) + margin))
        axes.xaxis.set(major_locator=LogLocator(numticks=8), major_formatter=EngFormatter(sep=""))
        axes.minorticks_off()
        axes.grid(True)
        axes.yaxis.set_major_formatter(FuncFormatter(style.format_tick))
        styles = style.method_styles({name: (methods or {}).get(name, name) for name in points})
        for name, point in points.items():
            axes.plot(*point, **{**styles[name], "linestyle": "none"}, clip_on=False)
        _label_points(axes, points)
        return to_svg(figure, title)


def sparkline(title: str, curves: Sequence[Sequence[float]], low: float, high: float) -> str:
    """Return a small chart of curves without axes.

    Args:
        title: Accessible name of the chart.
        curves: Value of each epoch, curve by curve.
        low: Lower end of the vertical axis.
        high: Upper end of the vertical axis.

    Returns:
        A small chart of curves without axes.
    """
    with chart_style(title):
        figure, axes = make_axes(1.25, 0.42, (0.03, 0.08, 0.94, 0.84))
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(low, high if high > low else low + 1))
        for curve in curves:
            steps = max(len(curve) - 1, 1)
            marker = "." if len(curve) == 1 else ""  # a line needs two points
            xs = [i / steps for i in range(len(curve))]
            axes.plot(xs, curve, color=style.BLUE, linewidth=1, alpha=0.7, marker=marker)
        return to_svg(figure, title)


def _label_points(axes: "Axes", points: Mapping[str, tuple[float, float]]) -> None:
    """Write the names beside the dots; a name that would cover another one moves down."""
    scale = _POINTS_PER_INCH / axes.figure.dpi
    taken: list[tuple[float, float, float]] = []
    for name, point in sorted(points.items(), key=lambda item: -item[1][1]):
        x, y = (scale * value for value in axes.transData.transform(point))
        start, label = x + 6, y - 3
        end = start + _CHAR_WIDTH * len(name)
        for other_start, other_end, other_label in taken:  # from the top down, so that one pass is enough
            if start < other_end and other_start < end:
                label = min(label, other_label - 12)
        taken.append((start, end, label))
        axes.annotate(
            literal(name), point, xytext=(start - x, label - y), textcoords="offset points", annotation_clip=False
        )


def chart_style(title: str) -> Any:
    """Return a context with the style, in which the ids of each chart differ and are the same every time.

    Args:
        title: Accessible name of the chart.

    Returns:
        The context.
    """
    from matplotlib.style import context

    return context([Path(__file__).with_name("chart.mplstyle"), {"svg.hashsalt": title}])


def make_axes(width: float, height: float, position: tuple[float, float, float, float]) -> "tuple[Figure, Axes]":
    """Return a figure with axes.

    Args:
        width: Width in inches.
        height: Height in inches.
        position: Left, bottom, width and height of the axes, as shares of the figure.

    Returns:
        The figure and its axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.add_axes(position)


def to_svg(figure: "Figure", title: str) -> str:
    """Return a figure as an SVG element without ids, metadata or addresses of its own.

    Args:
        figure: The figure.
        title: Accessible name of the chart.

    Returns:
        The SVG element.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    _, _, body = text.getvalue().partition("<svg")[2].partition(">")
    body = _FONTS.sub("font-family: system-ui, sans-serif", _CLUTTER.sub("", _IDS.sub("", body)))
    for color, variable in _CSS_VARIABLES.items():
        body = body.replace(color, f"var({variable})")
    width, height = (_POINTS_PER_INCH * inches for inches in figure.get_size_inches())
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(printable(title))}" '
        f'style="max-width:none;width:{width:g}pt">{body.strip()}'
    )


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_LABEL_CHARS else f"{name[: _MAX_LABEL_CHARS - 1]}…"
