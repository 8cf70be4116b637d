"""The record of a search: every decision, one JSON line each, which the same command reads instead of deciding anew."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vpt.core.damage import damage_named
from vpt.core.io import make_folder, write_atomic
from vpt.errors import DataError
from vpt.search.budget import Budget

_Value = TypeVar("_Value")
_MOST_KILLS = 2  # of the process within one decision, before it is given up
_ADVICE = "--overwrite begins the search anew"


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
        self._begun = path.parent / "search" / "begun.json"
        self._budget = budget
        self._lines: list[dict[str, Any]] = []
        if path.exists():
            with damage_named(path, "file of decisions", _ADVICE, DataError):
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

    def decide_or_give_up(self, name: str, compute: Callable[[], _Value], given_up: _Value) -> _Value:
        """Return a decision, or another one where the process was killed twice while this one was made.

        The system kills a process that takes too much memory, and would do so each time. Errors and Ctrl-C do not
        count.

        Args:
            name: Name of the decision.
            compute: Function that makes it: a JSON value.
            given_up: The other decision.

        Returns:
            The decision.
        """
        if self.has(name):
            return self.decide(name, compute)
        kills = 0
        if self._begun.exists():
            with damage_named(self._begun, "file of a decision", _ADVICE, DataError):
                begun = json.loads(self._begun.read_text(encoding="utf-8"))
                kills = int(begun["times"]) if begun["decision"] == name else 0
        make_folder(self._begun.parent)
        write_atomic(self._begun, json.dumps({"decision": name, "times": kills + 1}).encode())
        try:
            return self.decide(name, compute if kills < _MOST_KILLS else lambda: given_up)
        finally:
            self._begun.unlink(missing_ok=True)
