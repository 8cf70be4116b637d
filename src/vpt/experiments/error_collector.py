"""Faults of a plan, gathered while reading goes on, so that all of them are told at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vpt.core.text import bullets, did_you_mean
from vpt.errors import SpecError, VptError


class ErrorCollector:
    """What is wrong with one plan."""

    def __init__(self, plan: Path) -> None:
        self.plan = plan
        self.errors: list[VptError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """What is raised inside is kept for `tell`; what comes after goes on."""
        try:
            yield
        except VptError as error:
            self.errors.append(error)

    def raise_collected(self) -> None:
        """Raise what there is: an error alone as it is, several as one of the first's kind that lists them all."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            texts = list(dict.fromkeys(map(str, self.errors)))
            raise type(self.errors[0])(f"{self.plan} has {len(texts)} faults:{bullets(texts, limit=len(texts))}")


def check_keys(values: Any, keys: Iterable[str], where: str) -> None:
    """Raise SpecError naming every key of a table that is none of `keys`, or for what is no table."""
    if not isinstance(values, Mapping):
        raise SpecError(f"{where} is {values!r}; it must be a table of keys and values")
    names = list(keys)
    unknown = [
        f"the key {key!r}, which means nothing here; {did_you_mean(key, names)}" for key in values if key not in names
    ]
    if unknown:
        raise SpecError(f"{where} has {'; and '.join(unknown)}")
