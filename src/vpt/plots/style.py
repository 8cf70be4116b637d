"""Colors, markers, ticks and line breaks: one style for every figure.

The colors are those of Okabe and Ito (2008), "Color Universal Design", which readers with a red-green deficiency tell
apart.
Color is never the only sign: methods, classes and splits also differ in marker or dash.
"""

import textwrap
from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from vpt.plots.literal import literal

if TYPE_CHECKING:
    from matplotlib.axis import Axis

# These four have a contrast of at least 3:1 on white and on the dark paper of a page.
BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY = "#e69f00", "#56b4e9"
INK, GRAY, RULE = "#1c1c1c", "#767676", "#e5e5e5"
SHARES, HEAT, DIFFERENCE = "Blues", "inferno", "PuOr"  # color maps of shares, of attention, and of signed values

COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">", "p")  # no multiple of 7, so that 77 pairs differ
_FILLS, _DASHES = ("full", "none", "left", "top"), ("-", "--", ":", "-.")

# Family of methods -> its color, and the marker of each method. The filled markers are those of the usual comparisons.
_FAMILIES: dict[str, tuple[str, dict[str, str]]] = {
    "prompts": (BLUE, {"vpt": "o", "prefix": ">", "cross": "X", "adaptive": "h", "gated": "8"}),
    "adapters": (VERMILLION, {"adapter": "s", "adaptformer": "p", "sidetune": "<"}),
    "reparameterized weights": (GREEN, {"lora": "^", "ssf": "v"}),
    "selected weights": (PURPLE, {"bias": "x", "norm": "1", "partial": "+", "class_token": "2"}),
    "head": (GRAY, {"linear": "D", "mlp": "d", "head2toe": "4"}),
    "all weights": (INK, {"full": "*"}),
}
METHOD_MARKS = {name: (color, mark) for color, marks in _FAMILIES.values() for name, mark in marks.items()}
_UNKNOWN, _SUM = (SKY, "H"), "P"

SPLITS: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "marker": "o", "linestyle": "-"},
    {"color": VERMILLION, "marker": "s", "linestyle": "--"},
)


def method_styles(methods: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the options of matplotlib that draw each method: color by family, marker by method.

    Rows of one method differ in the fill of their marker and in their dash. A sum has the color of its first term.

    Args:
        methods: Name of a row -> text of its method, such as "vpt(length=10) + bias".

    Returns:
        Name of the row -> color, marker, fillstyle and linestyle.
    """
    styles: dict[str, dict[str, Any]] = {}
    fills: dict[tuple[str, str], Iterator[str]] = {}
    dashes: dict[str, Iterator[str]] = {}
    for row, text in methods.items():
        color, marker = METHOD_MARKS.get(text.partition("(")[0].partition("+")[0].strip(), _UNKNOWN)
        marker = _SUM if _is_sum(text) else marker
        fill = next(fills.setdefault((color, marker), cycle(_FILLS)))
        dash = next(dashes.setdefault(color, cycle(_DASHES)))
        styles[row] = {"color": color, "marker": marker, "fillstyle": fill, "linestyle": dash}
    return styles


def _is_sum(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "+" and not depth:
            return True
    return False


def series_styles(count: int) -> list[dict[str, Any]]:
    """Return the options of matplotlib that draw classes, or curves that are no methods.

    Args:
        count: Number of series. Up to 77 differ in the pair of color and marker.

    Returns:
        Color and marker of each.
    """
    return [{"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]} for i in range(count)]


def css_color(color: str) -> str:
    """Return a color for a page; ink is that of the page, light or dark."""
    return "var(--ink)" if color == INK else color


def clip_path(marker: str) -> str:
    """Return the shape of a marker as a value of the CSS property clip-path.

    Args:
        marker: The marker, as matplotlib names it.

    Returns:
        A polygon that fills its box.
    """
    from matplotlib.markers import MarkerStyle

    look = MarkerStyle(marker)
    outline = np.asarray(look.get_path().transformed(look.get_transform()).to_polygons()[0], np.float64)
    low, high = outline.min(0), outline.max(0)
    percent = 100 * (outline - low) / (high - low)
    return f"polygon({', '.join(f'{x:.0f}% {100 - y:.0f}%' for x, y in percent)})"


def format_tick(value: float, position: int | None = None) -> str:
    """Return a number as people write it: without exponent, with a true minus sign.

    Args:
        value: The number.
        position: Position of the tick, which matplotlib passes. Default: none.

    Returns:
        The text.
    """
    digits = np.format_float_positional(abs(value), precision=7, fractional=False, trim="-")
    whole, point, fraction = digits.partition(".")
    sign = "\N{MINUS SIGN}" if value < 0 else ""
    return f"{sign}{int(whole):,}{point}{fraction}"


def set_log_scale(axis: "Axis") -> None:
    """Give an axis a logarithmic scale whose ticks are numbers such as 0.2, 0.5 and 1.

    Args:
        axis: The axis, after its data are drawn.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low)
    # Below one decade, 1, 2 and 5 may leave a single tick.
    linear = decades < 0.7
    axis.set_major_locator(MaxNLocator(5) if linear else LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(format_tick))


def wrap(text: str, inches: float, *, points: float = 10, lines: int = 3) -> str:
    """Return text as matplotlib draws it, broken to fit a width.

    Args:
        text: The text, which may have line breaks.
        inches: Width in inches.
        points: Size of the font in points. Default: 10.
        lines: Number of lines from which on the text is cut. Default: 3.

    Returns:
        The escaped text.
    """
    per_line = max(6, int(72 * inches / (0.62 * points)))  # 0.62: width of a wide letter in its height
    broken: list[str] = []
    for line in text.split("\n"):
        broken += textwrap.wrap(line, per_line, break_on_hyphens=False) or [""]
    if len(broken) > lines:
        broken = [*broken[: lines - 1], f"{broken[lines - 1][: per_line - 1]}\N{HORIZONTAL ELLIPSIS}"]
    return literal("\n".join(broken))
