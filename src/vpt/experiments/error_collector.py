"""Errors of a plan, collected while reading continues, so that all of them are reported at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vpt.core.text import bullets
from vpt.errors import VptError


class ErrorCollector:
    """The errors of one plan."""

    def __init__(self, source: str) -> None:
        """Start without errors.

        Args:
            source: Name of the plan for the message.
        """
        self.source = source
        self.errors: list[VptError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep a VptError of the `with` block, and continue after it."""
        try:
            yield
        except VptError as error:
            self.errors.append(error)

    def raise_collected(self) -> None:
        """Raise the errors.

        Raises:
            VptError: There are errors: a single one as it is, several as one of the first one's class that lists all.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            texts = list(dict.fromkeys(map(str, self.errors)))
            raise type(self.errors[0])(f"{self.source} has {len(texts)} errors:{bullets(texts, limit=len(texts))}")
