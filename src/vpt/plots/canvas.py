"""Empty figures, and their files."""

from pathlib import Path
from typing import TYPE_CHECKING

from vpt.core.io import write_atomic_with
from vpt.errors import SpecError
from vpt.plots.style import wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_plot_path(path: Path, *others: str) -> None:
    """Check the file name of a picture before any work is done.

    Args:
        path: Path of the picture.
        *others: Suffixes of files that are no pictures and may be written too, such as ".html".

    Raises:
        SpecError: The name ends in neither .png nor .svg nor one of the others.
    """
    suffixes = (*others, ".png", ".svg")
    if path.suffix.casefold() not in suffixes:
        *first, last = suffixes
        raise SpecError(f"{path} is not the name of a picture; end it in {', '.join(first)} or {last}")


def make_figure(width: float, height: float) -> "Figure":
    """Return an empty figure that no window shows.

    Args:
        width: Width in inches.
        height: Height in inches.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure  # no pyplot: no window system, no global state

    return Figure(figsize=(width, height), layout="constrained")


def set_title(figure: "Figure", title: str) -> None:
    """Write the title of a figure, in several lines if it is wider than the figure.

    Args:
        figure: The figure.
        title: The title.
    """
    figure.suptitle(wrap(title, figure.get_figwidth(), points=11), fontsize=11)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure to a file, whole or not at all.

    Args:
        figure: The figure.
        path: Path of the picture, which ends in .png or .svg.
    """
    check_plot_path(path)
    write_atomic_with(path, lambda file: figure.savefig(file, dpi=120, format=path.suffix[1:]))
