"""Maps over an image."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.plots import style
from vpt.plots.canvas import make_figure, save_figure, set_title

_SIDE, _HEIGHT = 3.2, 2.9  # inches of a map with its scale


def heatmaps(
    path: Path,
    image: NDArray[np.uint8],
    rows: Sequence[Mapping[str, NDArray[np.float64]]],
    title: str,
    *,
    signed: Collection[str] = (),
    shares: Sequence[float] = (),
) -> None:
    """Plot an image, and maps over it; each map has a scale of its own beside it.

    Args:
        path: Path of the picture.
        image: Image, (height, width, 3).
        rows: Rows of maps by name, (rows of patches, columns of patches).
        title: Title of the picture.
        signed: Names of maps of differences, whose scale is symmetric about 0. Default: none.
        shares: Share of the attention that each block gives to prompts, or their gate, drawn below the image.
            Default: none.
    """
    from matplotlib.ticker import MaxNLocator

    columns = 1 + max(map(len, rows))
    figure = make_figure(_SIDE * columns, _HEIGHT * len(rows))
    cells: Any = figure.subplots(len(rows), columns, squeeze=False)
    for axes in cells.flat:
        axes.set_axis_off()
    cells[0, 0].imshow(image)
    for line, row in zip(cells, rows, strict=True):
        for axes, (name, values) in zip(line[1:], row.items(), strict=False):
            _draw_map(axes, image, name, values, name in signed)
    if len(shares) and len(rows) > 1:
        axes = cells[1, 0]
        axes.set_axis_on()
        percent = [100 * share for share in shares]
        axes.plot(range(1, len(shares) + 1), percent, **style.SPLITS[0], markersize=4)
        limits = min(0, *percent), max(101, *percent)  # gates may be negative, or above 1
        axes.set(xlabel="block", ylabel="attention to prompts, %", ylim=limits)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    set_title(figure, title)
    save_figure(figure, path)


def image_grid(
    path: Path,
    rows: Sequence[tuple[str, NDArray[np.uint8], Mapping[str, NDArray[np.float64]]]],
    title: str,
    *,
    signed: Collection[str] = (),
) -> None:
    """Plot a row for each image: the image, and maps over it, each with a scale of its own beside it.

    Args:
        path: Path of the picture.
        rows: Caption, image (height, width, 3), and maps by name.
        title: Title of the picture.
        signed: Names of maps of differences, whose scale is symmetric about 0. Default: none.
    """
    columns = 1 + max(len(maps) for _, _, maps in rows)
    figure = make_figure(_SIDE * columns, _HEIGHT * len(rows) + 0.5)
    cells: Any = figure.subplots(len(rows), columns, squeeze=False)
    for (first, *line), (caption, image, maps) in zip(cells, rows, strict=True):
        first.imshow(image)
        first.set_title(style.wrap(caption, 2.6, points=9, lines=2), fontsize=9)
        for axes, (name, values) in zip(line, maps.items(), strict=True):
            _draw_map(axes, image, name, values, name in signed)
    for axes in cells.flat:
        axes.set_axis_off()
    set_title(figure, title)
    save_figure(figure, path)


def _draw_map(axes: Any, image: NDArray[np.uint8], name: str, values: NDArray[np.float64], signed: bool) -> None:
    """Draw a map over the gray image, with its scale beside it."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    height, width = image.shape[:2]
    axes.imshow(image.mean(2), cmap="gray", vmin=0, vmax=255)
    limit = float(np.abs(values).max()) or 1.0
    low, high = (-limit, limit) if signed else (values.min(), values.max())
    colors = style.DIFFERENCE if signed else style.HEAT
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    # Every patch as the square it is: smoothing would show more than is known.
    heatmap = axes.imshow(values, cmap=colors, vmin=low, vmax=high, alpha=0.65, extent=extent)
    axes.set_title(style.wrap(name, 2.6, points=9), fontsize=9)
    bar = axes.figure.colorbar(heatmap, ax=axes, format=FuncFormatter(style.format_tick), shrink=0.8)
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
