"""The methods of a plan: rows of the tables, each with the settings it may choose from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpt.errors import SpecError, nearest
from vpt.experiments.error_collector import Faults, check_keys
from vpt.experiments.experiment import Candidate, Entry
from vpt.methods.registry import parse_method
from vpt.training import Recipe

_METHOD = {"name", "spec", "grid"}
_CHOSEN = ("learning_rate", "weight_decay")


def entries(values: Mapping[str, Any], path: Path, faults: Faults, kind: type[Recipe] = Recipe) -> tuple[Entry, ...]:
    """The rows of `methods`, each with what [recipe], its grid and its own keys say. What is wrong goes to `faults`.

    kind: of the recipes.
    """
    known = kind.choices() - {"seed"}
    recipe, grids = values.get("recipe", {}), values.get("grids", {})
    with faults.gathered():
        check_keys(recipe, known, f"{path}: [recipe]")
    for name, grid in grids.items():
        with faults.gathered():
            check_keys(grid, known, f"{path}: [grids.{name}]")
    rows = [{"spec": row} if isinstance(row, str) else row for row in values.get("methods", [])]
    found = []
    for row in rows:
        with faults.gathered():
            found.append(_entry(row, recipe, grids, path, kind, known))
    with faults.gathered():
        if not rows:
            raise SpecError(f'{path} names no methods; add some, such as methods = ["linear", "vpt(length=10)"]')
    return tuple(found)


def _entry(
    row: Mapping[str, Any],
    recipe: Mapping[str, Any],
    grids: Mapping[str, Any],
    path: Path,
    kind: type[Recipe],
    known: frozenset[str],
) -> Entry:
    check_keys(row, _METHOD | known, f"{path}: a method")
    if "spec" not in row:
        raise SpecError(f'{path}: the method {dict(row)} has no spec; give it one, such as spec = "vpt(length=10)"')
    if "grid" in row and row["grid"] not in grids:
        raise SpecError(f"{path}: the grid {row['grid']!r} is not there; {nearest(str(row['grid']), grids)}")
    own = {key: value for key, value in row.items() if key in known}
    settings = {**recipe, **(grids[row["grid"]] if "grid" in row else {}), **own}
    settings = {key: value for key, value in settings.items() if key in known}  # others were told of already
    choices = {key: several(settings.pop(key, None)) for key in _CHOSEN}
    for key, values in {"spec": several(row["spec"]), **choices}.items():
        if not values:
            raise SpecError(
                f"{path}: the method {dict(row)} has an empty grid: {key} is []; give it a value, or leave it out"
            )
    candidates = []
    try:
        methods = [parse_method(spec) for spec in several(row["spec"])]
        for method, rate, decay in itertools.product(methods, *choices.values()):
            chosen = kind.of(method, **settings, learning_rate=rate, weight_decay=decay)
            candidates.append(Candidate(method.spec(full=True), chosen))
    except TypeError as error:  # a value that cannot be compared with a number
        raise SpecError(f"{path}: the method {dict(row)} has a value of the wrong kind: {error}") from error
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error
    unique = tuple(dict.fromkeys(candidates))
    return Entry(str(row.get("name", " | ".join(map(str, methods)))), unique)


def several(value: Any) -> list[Any]:
    """A list as it is, and anything else as a list of one."""
    return value if isinstance(value, list) else [value]


def baseline(name: str | None, entries: tuple[Entry, ...], path: Path) -> str | None:
    """The row that others are measured against: the one named, or else full fine-tuning where it is there."""
    if name is not None and name not in [entry.name for entry in entries]:
        raise SpecError(f"{path}: baseline is {name!r}; {nearest(name, [entry.name for entry in entries])}")
    full = (e.name for e in entries if e.candidates and parse_method(e.candidates[0].spec).name == "full")
    return name or next(full, None)
