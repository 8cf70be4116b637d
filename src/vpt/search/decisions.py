"""The record of a search: every decision, one JSON line each, which the same command reads instead of deciding anew."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vpt.core.damage import damage_named
from vpt.core.io import write_atomic
from vpt.errors import DataError
from vpt.search.budget import Budget

_Value = TypeVar("_Value")


class Decisions:
    """Decisions by name, kept in a file.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, budget: Budget) -> None:
        """Read the decisions of an interrupted search, and count its seconds.

        Args:
            path: The file, decisions.jsonl.
            budget: The budget.
        """
        self.path = path
        self._budget = budget
        self._lines: list[dict[str, Any]] = []
        if path.exists():
            with damage_named(path, "file of decisions", "--overwrite begins the search anew", DataError):
                found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
                self._lines = [{name: line[name] for name in ("decision", "seconds", "value")} for line in found]
                if found:
                    budget.resume(float(found[-1]["seconds"]))

    def has(self, name: str) -> bool:
        """Return whether a decision is made.

        Args:
            name: Name of the decision.

        Returns:
            True if it is made.
        """
        return any(line["decision"] == name for line in self._lines)

    def decide(self, name: str, compute: Callable[[], _Value], *, later: bool = False) -> _Value:
        """Return a decision, which is made only if the file does not have it.

        Args:
            name: Name of the decision.
            compute: Function that makes it: a JSON value.
            later: True writes it together with the next one, so that a faulty request leaves no file. Default: False.

        Returns:
            The decision as JSON gives it back, so that a resumed search goes on with the same values.
        """
        for line in self._lines:
            if line["decision"] == name:
                return line["value"]  # type: ignore[no-any-return]
        value = json.loads(json.dumps(compute()))
        self._lines.append({"decision": name, "seconds": round(self._budget.elapsed, 3), "value": value})
        if later:
            return value  # type: ignore[no-any-return]
        write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in self._lines).encode())
        return value  # type: ignore[no-any-return]
