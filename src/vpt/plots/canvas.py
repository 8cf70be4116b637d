"""Empty figures, and their files."""

from pathlib import Path
from typing import TYPE_CHECKING

from vpt.core.io import write_atomic_with
from vpt.errors import SpecError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_plot_path(path: Path) -> None:
    """Check the file name of a picture before any work is done.

    Args:
        path: Path of the picture.

    Raises:
        SpecError: The name ends in neither .png nor .svg.
    """
    if path.suffix.casefold() not in (".png", ".svg"):
        raise SpecError(f"{path} is not the name of a picture; end it in .png or .svg")


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


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure to a file, whole or not at all.

    Args:
        figure: The figure.
        path: Path of the picture, which ends in .png or .svg.
    """
    check_plot_path(path)
    write_atomic_with(path, lambda tmp: figure.savefig(tmp, dpi=120))
