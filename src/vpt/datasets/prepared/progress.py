"""How long work on files tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what is going on, done, total


def no_progress(what: str, done: int, total: int) -> None:
    """A listener that says nothing."""
