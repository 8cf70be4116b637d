"""Protocols: the conditions, methods and published figures that a plan takes by name, one TOML file each.

A protocol has the keys of a plan. What a plan sets otherwise is a departure: it is applied, and named in the report.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from vpt.core.text import did_you_mean
from vpt.errors import SpecError

# Keys that change no figure: they name, locate, subset and keep.
_NEUTRAL_KEYS = {"name", "protocol", "benchmark", "data", "baseline", "keep_tuned", "unsupported"}
_ROW_KEYS = ("methods", "tasks")


@dataclass(frozen=True)
class Departure:
    """A key that a plan sets otherwise than its protocol.

    Attributes:
        key: Path of the key, such as "training.epochs", "methods.VPT-deep.batch_size" or "methods.MINE".
        protocol: Value of the protocol; None where it has none.
        plan: Value of the plan.
    """

    key: str
    protocol: Any
    plan: Any

    def concerns(self, method: str, task: str) -> bool:
        """Return whether the departure changes what the score of a method on a task means; a number of seeds does not.

        Args:
            method: Name of the row.
            task: Name of the task.

        Returns:
            True for the row or task that the key names, for none where it names a whole grid, which the protocol does
            not have, and for each of them otherwise.
        """
        kind, _, rest = self.key.partition(".")
        if kind in _ROW_KEYS:
            return f"{rest}.".startswith(f"{method if kind == 'methods' else task}.")
        is_own_grid = kind == "grids" and "." not in rest  # the rows that take it are departures themselves
        return kind not in ("seeds", "first_seed") and not is_own_grid


@cache
def load_protocol(name: str) -> dict[str, Any]:
    """Return the tables of a protocol.

    Args:
        name: Its name.

    Returns:
        The tables, to be read only.

    Raises:
        SpecError: There is none of this name.
    """
    files = {path.stem: path for path in Path(__file__).parent.glob("*.toml")}
    if name not in files:
        raise SpecError(f"there is no protocol {name!r}; {did_you_mean(name, files)}, or leave protocol out")
    return tomllib.loads(files[name].read_text(encoding="utf-8"))


def apply_protocol(plan: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Departure, ...]]:
    """Return a plan with all that its protocol says, and its departures.

    Args:
        plan: Tables of the plan, not validated. `methods` takes rows of the protocol by their names; without it the
            plan has all of them.

    Returns:
        Tables of a plan that needs no protocol, and the departures; without a protocol the same plan, and none.

    Raises:
        SpecError: There is no protocol of this name.
    """
    if not isinstance(plan.get("protocol"), str):
        return dict(plan), ()
    protocol = {key: value for key, value in load_protocol(plan["protocol"]).items() if key != "published"}
    backbone, rows_of_methods = str(plan.get("backbone", protocol["backbone"])), protocol["methods"]
    protocol["methods"] = [_on_backbone(row, backbone) for row in rows_of_methods]
    departures: list[Departure] = []
    merged = _merge(protocol, {key: value for key, value in plan.items() if key not in _ROW_KEYS}, "", departures)
    for key in _ROW_KEYS:
        if isinstance(rows := plan.get(key), list):
            known = {row["name"]: row for row in (rows_of_methods if key == "methods" else protocol.get(key, []))}
            merged[key] = [_merge_row(known, row, f"{key}.", backbone, departures) for row in rows]
        elif key in plan:
            merged[key] = rows
    return merged, tuple(departures)


def describe_protocol(name: str | None, departures: Iterable[Departure]) -> list[str]:
    """Return a sentence about a protocol and the departures from it; none where there is no protocol.

    Args:
        name: Name of the protocol.
        departures: Departures from it.

    Returns:
        One sentence, or none.
    """
    found = "; ".join(f"{one.key} is {one.plan}, not {one.protocol}" for one in departures)
    return [f"Protocol: {name}, {f'except that {found}' if found else 'without departures'}."] if name else []


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any], path: str, found: list[Departure]) -> dict[str, Any]:
    """Return a table with changes, and add those that change a value to the departures."""
    merged = dict(base)
    for key, value in changes.items():
        own = base.get(key)
        if isinstance(value, dict) and isinstance(own, dict):
            merged[key] = _merge(own, value, f"{path}{key}.", found)
            continue
        merged[key] = value
        if value != own and f"{path}{key}" not in _NEUTRAL_KEYS:
            found.append(Departure(f"{path}{key}", own, value))
    return merged


def _on_backbone(row: Mapping[str, Any], backbone: str) -> dict[str, Any]:
    """Return a row of a protocol as it is on a backbone: `on_backbone` has a pattern of names -> other keys."""
    chosen = {key: value for key, value in row.items() if key != "on_backbone"}
    for pattern, keys in row.get("on_backbone", {}).items():
        chosen |= keys if fnmatch(backbone, pattern) else {}
    return chosen


def _merge_row(known: Mapping[str, Any], row: Any, path: str, backbone: str, found: list[Departure]) -> Any:
    """Return a row of `methods` or `tasks`; one that the protocol does not have is a departure as a whole."""
    name = row.get("name") if isinstance(row, dict) else row
    if not isinstance(name, str) or name not in known:
        found.append(Departure(f"{path}{_row_name(row)}", None, row))
        return row
    own = {} if row == name else row
    base = _on_backbone(known[name], str(own.get("backbone", backbone)))
    base = {key: value for key, value in base.items() if key != "variants" or "spec" not in own}
    return _merge(base, own, f"{path}{name}.", found)


def _row_name(row: Any) -> str:
    """Return the name of a row; that of a method without one is its text, or that of the row of an ensemble."""
    table = row if isinstance(row, dict) else {"name": row}
    text = next((table[key] for key in ("name", "spec", "ensemble_of") if key in table), "without a name")
    return " | ".join(map(str, text)) if isinstance(text, list) else str(text)
