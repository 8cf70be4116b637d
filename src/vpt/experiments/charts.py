"""Charts as SVG text, to be put into a page whose style has the colors: `ink`, `rule`, `line`, `up`, `down`
and `dot`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_ROW_HEIGHT = 20  # px from one task to the next
_LABEL_WIDTH, _VALUE_WIDTH, _BAR_WIDTH = 120, 56, 90  # px for the name of a task, the figure, and a bar to one side
_MAX_LABEL_CHARS = 17  # of a name that fit there
_CHAR_WIDTH = 7.5  # px, roughly


def bar_chart(title: str, values: Mapping[str, float], limit: float) -> str:
    """One bar for each task, to the right of zero where the method is better. limit: the largest on any chart.

    values: task -> points. All charts of a page have one scale, so that they can be compared.
    """
    zero = _LABEL_WIDTH + _BAR_WIDTH
    width, height = zero + _BAR_WIDTH + _VALUE_WIDTH, _ROW_HEIGHT * len(values) + 8
    elements = [f'<line class="rule" x1="{zero}" y1="0" x2="{zero}" y2="{height}"/>']
    for row, (task, value) in enumerate(values.items()):
        y = _ROW_HEIGHT * row + 4
        length = abs(value) / limit * _BAR_WIDTH if limit else 0.0
        start = zero if value >= 0 else zero - length
        kind = "up" if value >= 0 else "down"
        name = task if len(task) <= _MAX_LABEL_CHARS else f"{task[: _MAX_LABEL_CHARS - 1]}…"
        elements += [
            f'<text class="ink" x="{_LABEL_WIDTH - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{start:.1f}" y="{y}" width="{length:.1f}" height="14">'
            f"<title>{escape(task)}: {value:+.2f}</title></rect>",
            f'<text class="ink" x="{width - 4}" y="{y + 12}" text-anchor="end">{value:+.2f}</text>',
        ]
    return _svg(title, width, height, elements)


def scatter_plot(title: str, points: Mapping[str, tuple[float, float]], metric: str = "top-1") -> str:
    """A named dot for each method: trained parameters on a logarithmic scale, and a metric in %. points: (x, y)."""
    width, height, left, right, top, bottom = 640, 360, 56, 150, 16, 44
    low_x = math.floor(math.log10(min(x for x, _ in points.values())))
    high_x = max(math.ceil(math.log10(max(x for x, _ in points.values()))), low_x + 1)
    step = _tick_step(max(y for _, y in points.values()) - min(y for _, y in points.values()))
    low_y = step * math.floor(min(y for _, y in points.values()) / step)
    high_y = max(step * math.ceil(max(y for _, y in points.values()) / step), low_y + step)

    def x_pixel(x: float) -> float:
        return left + (math.log10(x) - low_x) / (high_x - low_x) * (width - left - right)

    def y_pixel(y: float) -> float:
        return height - bottom - (y - low_y) / (high_y - low_y) * (height - top - bottom)

    elements = []
    for tick in range(round((high_y - low_y) / step) + 1):
        value = low_y + tick * step
        y = y_pixel(value)
        elements += [
            f'<line class="rule" x1="{left}" y1="{y:.1f}" x2="{width - right}" y2="{y:.1f}"/>',
            f'<text class="ink" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>',
        ]
    for power in range(low_x, high_x + 1):
        x = x_pixel(10.0**power)
        elements += [
            f'<line class="rule" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{height - bottom}"/>',
            f'<text class="ink" x="{x:.1f}" y="{height - bottom + 16}" text-anchor="middle">{_format_power(power)}</text>',
        ]
    middle = (left + width - right) / 2
    elements.append(
        f'<text class="ink" x="{middle:.0f}" y="{height - 8}" text-anchor="middle">trained parameters</text>'
        f'<text class="ink" x="14" y="{(top + height - bottom) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(top + height - bottom) / 2:.0f})">{escape(metric)}, %</text>'
    )
    taken: list[tuple[float, float, float]] = []
    for name, (x, y) in sorted(points.items(), key=lambda point: -point[1][1]):
        start, label = x_pixel(x) + 9, y_pixel(y) + 4
        end = start + _CHAR_WIDTH * len(name)
        for other_start, other_end, other_label in taken:  # from the top down, so that one pass will do
            if start < other_end and other_start < end:
                label = max(label, other_label + 15)
        taken.append((start, end, label))
        elements.append(
            f'<circle class="dot" cx="{x_pixel(x):.1f}" cy="{y_pixel(y):.1f}" r="5">'
            f"<title>{escape(name)}: {x:,.0f} parameters, {y:.2f} %</title></circle>"
            f'<text class="ink" x="{start:.1f}" y="{label:.1f}">{escape(name)}</text>'
        )
    return _svg(title, width, height, elements)


def sparkline(title: str, curves: Sequence[Sequence[float]], low: float, high: float) -> str:
    """Curves on one small piece of paper. curves: a value for each epoch; low, high: the ends of the y axis."""
    width, height, edge = 120, 40, 3

    def polyline_points(curve: Sequence[float]) -> str:
        steps, span = max(len(curve) - 1, 1), high - low or 1.0
        corners = ((i / steps, min(max((value - low) / span, 0.0), 1.0)) for i, value in enumerate(curve))
        return " ".join(
            f"{edge + x * (width - 2 * edge):.1f},{height - edge - y * (height - 2 * edge):.1f}" for x, y in corners
        )

    return _svg(
        title, width, height, [f'<polyline class="line" points="{polyline_points(curve)}"/>' for curve in curves]
    )


def _svg(title: str, width: float, height: float, elements: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}" '
        f'style="max-width:{width:g}px">{"".join(elements)}</svg>'
    )


def _tick_step(span: float) -> float:
    """A round distance between lines: about five of them over `span`."""
    rough = max(span / 5, 0.2)
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)


def _format_power(exponent: int) -> str:
    names = {0: "1", 3: "1k", 6: "1M", 9: "1G"}
    base = exponent - exponent % 3
    return f"{10 ** (exponent - base)}{names.get(base, f'e{base}')[1:]}"
