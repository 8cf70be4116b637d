"""The methods of a plan: rows of the tables, each with the settings it may choose from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpt.core.text import did_you_mean
from vpt.errors import SpecError
from vpt.experiments.error_collector import ErrorCollector, check_keys
from vpt.experiments.experiment import MethodRow, Setting
from vpt.methods.registry import parse_method
from vpt.tasks.classification.config import ClassificationConfig
from vpt.training import TaskConfig

_ROW_KEYS = {"name", "spec", "grid"}
_SEARCHED_KEYS = ("learning_rate", "weight_decay")


def parse_methods(
    values: Mapping[str, Any],
    path: Path,
    collector: ErrorCollector,
    config_class: type[TaskConfig] = ClassificationConfig,
) -> tuple[MethodRow, ...]:
    """The rows of `methods`, each with what [training], its grid and its own keys say. What is wrong goes to `collector`.

    kind: of the recipes.
    """
    config_keys = config_class.option_names() - {"seed"}
    config, grids = values.get("training", {}), values.get("grids", {})
    with collector.collect():
        check_keys(config, config_keys, f"{path}: [training]")
    for name, grid in grids.items():
        with collector.collect():
            check_keys(grid, config_keys, f"{path}: [grids.{name}]")
    rows = [{"spec": row} if isinstance(row, str) else row for row in values.get("methods", [])]
    found = []
    for row in rows:
        with collector.collect():
            found.append(_parse_method_row(row, config, grids, path, config_class, config_keys))
    with collector.collect():
        if not rows:
            raise SpecError(f'{path} names no methods; add some, such as methods = ["linear", "vpt(length=10)"]')
    return tuple(found)


def _parse_method_row(
    row: Mapping[str, Any],
    config: Mapping[str, Any],
    grids: Mapping[str, Any],
    path: Path,
    config_class: type[TaskConfig],
    config_keys: frozenset[str],
) -> MethodRow:
    check_keys(row, _ROW_KEYS | config_keys, f"{path}: a method")
    if "spec" not in row:
        raise SpecError(f'{path}: the method {dict(row)} has no spec; give it one, such as spec = "vpt(length=10)"')
    if "grid" in row and row["grid"] not in grids:
        raise SpecError(f"{path}: the grid {row['grid']!r} is not there; {did_you_mean(str(row['grid']), grids)}")
    own = {key: value for key, value in row.items() if key in config_keys}
    values = {**config, **(grids[row["grid"]] if "grid" in row else {}), **own}
    values = {key: value for key, value in values.items() if key in config_keys}  # others were told of already
    choices = {key: as_list(values.pop(key, None)) for key in _SEARCHED_KEYS}
    for key, options in {"spec": as_list(row["spec"]), **choices}.items():
        if not options:
            raise SpecError(
                f"{path}: the method {dict(row)} has an empty grid: {key} is []; give it a value, or leave it out"
            )
    settings = []
    try:
        methods = [parse_method(spec) for spec in as_list(row["spec"])]
        for method, rate, decay in itertools.product(methods, *choices.values()):
            setting_config = config_class.for_method(method, **values, learning_rate=rate, weight_decay=decay)
            settings.append(Setting(method.spec(full=True), setting_config))
    except TypeError as error:  # a value that cannot be compared with a number
        raise SpecError(f"{path}: the method {dict(row)} has a value of the wrong kind: {error}") from error
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error
    unique = tuple(dict.fromkeys(settings))
    return MethodRow(str(row.get("name", " | ".join(map(str, methods)))), unique)


def as_list(value: Any) -> list[Any]:
    """A list as it is, and anything else as a list of one."""
    return value if isinstance(value, list) else [value]


def find_baseline(name: str | None, rows: tuple[MethodRow, ...], path: Path) -> str | None:
    """The row that others are measured against: the one named, or else full fine-tuning where it is there."""
    if name is not None and name not in [row.name for row in rows]:
        raise SpecError(f"{path}: baseline is {name!r}; {did_you_mean(name, [row.name for row in rows])}")
    full = (row.name for row in rows if row.settings and parse_method(row.settings[0].spec).name == "full")
    return name or next(full, None)
