"""Progress reports of operations on files."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # description, done, total


def no_progress(description: str, done: int, total: int) -> None:
    """Ignore a progress report.

    Args:
        description: Description of the operation.
        done: Number of completed items.
        total: Number of items.
    """
