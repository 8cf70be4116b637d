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

A table [segmentation], with head and recompute_blocks, says that the tasks are folders of images and masks; [recipe] is
then a `Course`.

A method takes its settings from [recipe], then from its grid, then from its own keys, and what none of them names from
the method itself. Lists of learning_rate, weight_decay and spec are chosen from on val.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from vpt.backbones import DEFAULT, load_backbone, skeleton
from vpt.data.preprocessing import Preprocessing
from vpt.errors import BackboneError, SpecError, nearest
from vpt.experiments import benchmarks
from vpt.experiments.error_collector import Faults, check_keys
from vpt.experiments.experiment import Entry, Plan, Protocol, Segmentation, Task
from vpt.experiments.method_rows import baseline, entries, several
from vpt.experiments.segmentation_tasks import MASKS, list_scenes
from vpt.experiments.tasks import list_task
from vpt.heads.dense import parse_head
from vpt.methods.registry import parse_method
from vpt.model.tuned_model import TunedModel
from vpt.tasks.segmentation.job import usual_head
from vpt.tasks.segmentation.training import Course
from vpt.training import Recipe
from vpt.training.head_grid import check_grid

PLANS = Path(__file__).parent / "plans"
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
    "segmentation",
}
_TASK = {"name", "data", "group", "resize", "augment"}
_SCENES = {"name", "data", "group", *MASKS}


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

    Raises SpecError for a key or a value that cannot be, DataError for a task that cannot be read, BackboneError for
    the backbone, FitError for a method that finds no place on it: all of it before anything is run, and where there is
    more than one fault, all of them in one error of the first's kind.
    """
    values = _load(path)
    try:
        return _plan_of(values, path, data)
    except (TypeError, AttributeError) as error:  # a number where a text or a table belongs
        raise SpecError(f"{path} has a value of the wrong kind: {error}") from error


def _plan_of(values: dict[str, Any], path: Path, data: Path | None) -> Plan:
    faults = Faults(path)
    with faults.gathered():
        check_keys(values, _PLAN | _PROTOCOL, str(path))
    protocol = Protocol()
    with faults.gathered():
        protocol = _protocol({key: value for key, value in values.items() if key in _PROTOCOL}, path)
    segmentation = None
    with faults.gathered():
        segmentation = _segmentation(values, path)
    rows = entries(values, path, faults, Recipe if segmentation is None else Course)
    tasks = _tasks(values, path, data, protocol, segmentation, faults)
    for what, names in (("tasks", [task.name for task in tasks]), ("methods", [entry.name for entry in rows])):
        with faults.gathered():
            _distinct(what, names, path)
    measured_against = None
    with faults.gathered():
        if not faults.errors:  # a row that was refused would be missed here once more
            measured_against = baseline(values.get("baseline"), rows, path)
    backbone = str(values.get("backbone", DEFAULT))
    weights = None if values.get("weights") is None else (path.parent / values["weights"]).resolve()
    with faults.gathered():
        if weights is not None and not weights.is_file():
            raise BackboneError(f"{path}: the weights {weights} are not there; paths are relative to the plan")
    with faults.gathered():
        bare = skeleton(backbone, protocol.image_size)
        models: dict[str, TunedModel] = {}
        for spec in dict.fromkeys(candidate.spec for entry in rows for candidate in entry.candidates):
            with faults.gathered():
                dense = None if segmentation is None else parse_head(segmentation.head or usual_head(bare.module))
                most = max([2, *(task.classes for task in tasks)])
                models[spec] = TunedModel(bare, parse_method(spec), most, dense=dense)
        rows = tuple(replace(row, at_once=_at_once(row, models)) for row in rows)
    faults.tell()
    loaded = load_backbone(backbone, weights=weights, image_size=protocol.image_size)
    return Plan(
        name=str(values.get("name", path.stem)),
        backbone=backbone,
        weights=None if weights is None else str(weights),
        fingerprint=loaded.fingerprint(),
        parameters=sum(weight.numel() for weight in loaded.module.parameters()),
        protocol=protocol,
        tasks=tasks,
        entries=rows,
        baseline=measured_against,
        keep_tuned=bool(values.get("keep_tuned", True)),
        segmentation=segmentation,
    )


def _at_once(entry: Entry, models: Mapping[str, TunedModel]) -> bool:
    """Whether the runs of a row may be trained as a grid of heads."""
    specs = {candidate.spec for candidate in entry.candidates}
    if len(specs) != 1 or not specs <= models.keys() or models[next(iter(specs))].dense is not None:
        return False
    try:
        check_grid(models[next(iter(specs))], [candidate.recipe for candidate in entry.candidates])
    except SpecError:
        return False
    return True


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not TOML: {error}") from error


def _protocol(values: dict[str, Any], path: Path) -> Protocol:
    protocol = Protocol(**values)
    Preprocessing(resize=protocol.resize, interpolation=protocol.interpolation or "bilinear")  # raises for others
    if not isinstance(protocol.seeds, int) or protocol.seeds < 1:
        raise SpecError(f"{path}: seeds is {protocol.seeds}; it must be a whole number of at least 1")
    return protocol


def _segmentation(values: Mapping[str, Any], path: Path) -> Segmentation | None:
    """What [segmentation] says; None where it is not there, and the tasks are classification."""
    if "segmentation" not in values:
        return None
    check_keys(values["segmentation"], {"head", "recompute_blocks"}, f"{path}: [segmentation]")
    astray = [
        key for key in ("benchmark", "train_fraction", "test_fraction", "resize", "interpolation") if key in values
    ]
    if astray:
        raise SpecError(f"{path} has {', '.join(astray)}, for classification alone, beside [segmentation]")
    return Segmentation(**values["segmentation"])


def _tasks(
    values: Mapping[str, Any],
    path: Path,
    data: Path | None,
    protocol: Protocol,
    segmentation: Segmentation | None,
    faults: Faults,
) -> tuple[Task, ...]:
    """All tasks: those of the benchmark first. What is wrong goes to `faults`."""
    rows: list[tuple[Any, Path]] = []
    named = several(values["benchmark"]) if "benchmark" in values else []
    if benchmarks.are_ours(named):
        own = None if values.get("data") is None else path.parent / values["data"]
        with faults.gathered():
            rows += [(row, path) for row in benchmarks.rows(named, data or own, path)]
    else:
        for other in (path.parent / name for name in named):
            with faults.gathered():
                benchmark = _load(other)
                rows += [(row, other) for row in benchmark.get("tasks", [])]
                check_keys(benchmark, {"name", "tasks"}, str(other))
    rows += [(row, path) for row in values.get("tasks", [])]
    found = []
    for row, where in rows:
        with faults.gathered():
            check_keys(row, _TASK if segmentation is None else _SCENES, f"{where}: a task")
            if "name" not in row:
                raise SpecError(f"{where}: the task {row} has no name; give it one")
            listed = list_task if segmentation is None else list_scenes
            found.append(listed(row, where, protocol))
    with faults.gathered():
        if benchmarks.are_ours(named):
            benchmarks.verify(named, found, path)
        elif not rows and not faults.errors:
            raise SpecError(f"{path} names no tasks; add [[tasks]] tables, or benchmark = a file that has them")
    return tuple(found)


def _distinct(what: str, names: list[str], path: Path) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SpecError(f"{path}: two {what} are called {twice[0]!r}; give each a name of its own")
