"""From a TOML file to a plan. Every key is checked; paths are relative to the file they stand in.

    name = "two tasks"                     methods = [
    backbone = "vit_nano_patch12_48"         "linear",
    seeds = 5                                { name = "VPT", spec = ["vpt(length=1)", "vpt(length=50)"], grid = "sgd" },
    benchmark = "tasks.toml"                 { spec = "full", optimizer = "adamw", learning_rate = [1e-3, 1e-4] },
    [recipe]                               ]
    epochs = 100                           [grids.sgd]
    [[tasks]]                              optimizer = "sgd"
    name = "digits"                        learning_rate = [5.0, 0.5]
    group = "Natural"                      weight_decay = [0.01, 0.0]

benchmark may also name what comes with vpt, such as "vtab" or ["vtab", "fgvc"]; data is then the folder of its tasks.

A method takes its settings from [recipe], then from its grid, then from its own keys, and what none of them names from
the method itself. Lists of learning_rate, weight_decay and spec are chosen from on val.
"""

from __future__ import annotations

import hashlib
import itertools
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from vpt.backbone import DEFAULT, load_backbone
from vpt.bench import prepared
from vpt.bench.plan import Candidate, Entry, Plan, Protocol, Task
from vpt.data import generated
from vpt.data.dataset import Split
from vpt.data.read import read
from vpt.data.transforms import Preprocessing
from vpt.errors import DataError, SpecError, nearest
from vpt.methods.catalogue import parse_method
from vpt.model import TunedModel
from vpt.training import Recipe

PLANS = Path(__file__).parent / "plans"
_RECIPE = {field.name for field in fields(Recipe)} - {"seed"}
_PROTOCOL = {field.name for field in fields(Protocol)}
_PLAN = {
    "name",
    "backbone",
    "weights",
    "benchmark",
    "data",
    "baseline",
    "keep_tuned",
    "recipe",
    "grids",
    "tasks",
    "methods",
}
_TASK = {"name", "data", "group", "resize", "augment"}
_METHOD = {"name", "spec", "grid"}


def shipped() -> dict[str, Path]:
    """The plans that come with vpt, by name."""
    return {path.stem: path for path in sorted(PLANS.glob("*.toml"))}


def find(plan: str) -> Path:
    """The file of a plan: a path, or the name of a shipped one. Raises SpecError where there is neither."""
    path = Path(plan)
    if path.is_file():
        return path
    if plan in shipped():
        return shipped()[plan]
    raise SpecError(
        f"there is no plan {plan!r}, neither a file nor one that comes with vpt; {nearest(plan, shipped())}"
    )


def read_plan(path: Path, data: Path | None = None) -> Plan:
    """Read a plan, list its data, load its backbone and try each method on it.

    data: the folder that holds the prepared tasks of a benchmark, if not the one that the plan names.

    Raises SpecError for a key or a value that cannot be, DataError for a task that cannot be read, FitError for a
    method that finds no place on the backbone: all of it before anything is run.
    """
    values = _load(path, _PLAN | _PROTOCOL)
    protocol = _protocol({key: value for key, value in values.items() if key in _PROTOCOL}, path)
    entries = _entries(values, path)
    tasks = tuple(_task(row, where, protocol) for row, where in _rows(values, path, data))
    if prepared.are_ours(_named(values)):
        prepared.verify(_named(values), tasks, path)
    if not tasks:
        raise SpecError(f"{path} names no tasks; add [[tasks]] tables, or benchmark = a file that has them")
    for what, names in (("tasks", [task.name for task in tasks]), ("methods", [entry.name for entry in entries])):
        _distinct(what, names, path)
    backbone = str(values.get("backbone", DEFAULT))
    weights = None if values.get("weights") is None else str((path.parent / values["weights"]).resolve())
    loaded = load_backbone(backbone, weights=weights, image_size=protocol.image_size)
    for entry in entries:
        for spec in dict.fromkeys(candidate.spec for candidate in entry.candidates):
            TunedModel(loaded, parse_method(spec), tasks[0].classes)  # raises what the runs would
    return Plan(
        name=str(values.get("name", path.stem)),
        backbone=backbone,
        weights=weights,
        fingerprint=loaded.fingerprint(),
        parameters=sum(weight.numel() for weight in loaded.module.parameters()),
        protocol=protocol,
        tasks=tasks,
        entries=entries,
        baseline=_baseline(values.get("baseline"), entries, path),
        keep_tuned=bool(values.get("keep_tuned", True)),
    )


def _load(path: Path, keys: set[str]) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not TOML: {error}") from error
    _known(values, keys, str(path))
    return values


def _known(values: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    if not isinstance(values, Mapping):
        raise SpecError(f"{where} is {values!r}; it must be a table of keys and values")
    for key in values:
        if key not in keys:
            raise SpecError(f"{where} has the key {key!r}, which means nothing here; {nearest(key, keys)}")


def _protocol(values: dict[str, Any], path: Path) -> Protocol:
    protocol = Protocol(**values)
    Preprocessing(resize=protocol.resize, interpolation=protocol.interpolation or "bilinear")  # raises for others
    if not isinstance(protocol.seeds, int) or protocol.seeds < 1:
        raise SpecError(f"{path}: seeds is {protocol.seeds}; it must be a whole number of at least 1")
    return protocol


def _rows(values: Mapping[str, Any], path: Path, data: Path | None) -> list[tuple[dict[str, Any], Path]]:
    """Rows of tasks, each with the file it stands in: those of the benchmark first."""
    rows = [(row, path) for row in values.get("tasks", [])]
    named = _named(values)
    if prepared.are_ours(named):
        own = None if values.get("data") is None else path.parent / values["data"]
        rows = [(row, path) for row in prepared.rows(named, data or own, path)] + rows
    else:
        for name in named:
            other = path.parent / name
            rows = [(row, other) for row in _load(other, {"name", "tasks"}).get("tasks", [])] + rows
    for row, where in rows:
        _known(row, _TASK, f"{where}: a task")
        if "name" not in row:
            raise SpecError(f"{where}: the task {row} has no name; give it one")
    return rows


def _named(values: Mapping[str, Any]) -> list[str]:
    """The benchmarks of a plan: files, or names of those that come with vpt."""
    return _several(values["benchmark"]) if "benchmark" in values else []


def _task(row: Mapping[str, Any], path: Path, protocol: Protocol) -> Task:
    data = str(row.get("data", row["name"]))
    folder = (path.parent / data).resolve()
    if folder.is_dir():
        data = str(folder)
    elif data not in generated.TASKS:
        raise DataError(
            f"{path}: the data of task {row['name']!r} are neither a folder ({folder}) nor a built-in task; "
            f"{nearest(data, generated.TASKS)}"
        )
    found = read(
        data, seed=protocol.split_seed, val_fraction=protocol.val_fraction, test_fraction=protocol.test_fraction
    )
    for part, use in (("val", "to choose settings on"), ("test", "to be scored on")):
        if not len(found.splits[part]):
            raise DataError(f"{path}: the task {row['name']!r} has no {part} images {use}; bring some, or set "
                            f"{part}_fraction above 0")  # fmt: skip
    return Task(
        name=str(row["name"]),
        data=data,
        group=str(row.get("group", "")),
        classes=len(found.classes),
        images={part: len(split) for part, split in found.splits.items()},
        digests={part: _digest(split) for part, split in found.splits.items()},
        notes=found.notes,
        resize=Preprocessing(resize=row["resize"]).resize if row.get("resize") else None,  # raises for others
        augment=Recipe(augment=row["augment"]).augment if row.get("augment") else None,
    )


def _digest(split: Split) -> str:
    """Over what is listed: names, labels and sizes. No image file is opened; pixels count where there is no file."""
    digest = hashlib.sha256()
    for i, (name, label) in enumerate(zip(split.names, split.labels, strict=True)):
        image = split.images[i]
        content = _bytes_of(image) if isinstance(image, Path) else hashlib.sha256(image.tobytes()).hexdigest()
        digest.update(f"{name}\0{label}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:20]


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the run will name it
        return -1


def _entries(values: Mapping[str, Any], path: Path) -> tuple[Entry, ...]:
    recipe = values.get("recipe", {})
    _known(recipe, _RECIPE, f"{path}: [recipe]")
    grids = values.get("grids", {})
    _known(grids, grids, f"{path}: [grids]")
    for name, grid in grids.items():
        _known(grid, _RECIPE, f"{path}: [grids.{name}]")
    rows = [{"spec": row} if isinstance(row, str) else row for row in values.get("methods", [])]
    if not rows:
        raise SpecError(f'{path} names no methods; add some, such as methods = ["linear", "vpt(length=10)"]')
    return tuple(_entry(row, recipe, grids, path) for row in rows)


def _entry(row: Mapping[str, Any], recipe: Mapping[str, Any], grids: Mapping[str, Any], path: Path) -> Entry:
    _known(row, _METHOD | _RECIPE, f"{path}: a method")
    if "spec" not in row:
        raise SpecError(f'{path}: the method {dict(row)} has no spec; give it one, such as spec = "vpt(length=10)"')
    if "grid" in row and row["grid"] not in grids:
        raise SpecError(f"{path}: the grid {row['grid']!r} is not there; {nearest(str(row['grid']), grids)}")
    own = {key: value for key, value in row.items() if key in _RECIPE}
    settings = {**recipe, **(grids[row["grid"]] if "grid" in row else {}), **own}
    choices = {key: _several(settings.pop(key, None)) for key in ("learning_rate", "weight_decay")}
    candidates = []
    try:
        methods = [parse_method(spec) for spec in _several(row["spec"])]
        for method, rate, decay in itertools.product(methods, *choices.values()):
            chosen = Recipe.of(method, **settings, learning_rate=rate, weight_decay=decay)
            candidates.append(Candidate(method.spec(full=True), chosen))
    except TypeError as error:  # a value that cannot be compared with a number
        raise SpecError(f"{path}: the method {dict(row)} has a value of the wrong kind: {error}") from error
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error
    unique = tuple(dict.fromkeys(candidates))
    return Entry(str(row.get("name", " | ".join(map(str, methods)))), unique)


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _distinct(what: str, names: list[str], path: Path) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SpecError(f"{path}: two {what} are called {twice[0]!r}; give each a name of its own")


def _baseline(name: str | None, entries: tuple[Entry, ...], path: Path) -> str | None:
    """The row that others are measured against: the one named, or else full fine-tuning where it is there."""
    if name is not None and name not in [entry.name for entry in entries]:
        raise SpecError(f"{path}: baseline is {name!r}; {nearest(name, [entry.name for entry in entries])}")
    full = (e.name for e in entries if e.candidates and parse_method(e.candidates[0].spec).name == "full")
    return name or next(full, None)
