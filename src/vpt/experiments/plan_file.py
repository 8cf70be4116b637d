"""From a TOML file to a plan. Every key is checked; paths are relative to the file they stand in.

    name = "two tasks"                     methods = [
    backbone = "vit_nano_patch12_48"         "linear",
    seeds = 5                                { name = "VPT", spec = ["vpt(length=1)", "vpt(length=50)"], grid = "sgd" },
    benchmark = "tasks.toml"                 { spec = "full", optimizer = "adamw", learning_rate = [1e-3, 1e-4] },
    [training]                               ]
    epochs = 100                           [grids.sgd]
    [[tasks]]                              optimizer = "sgd"
    name = "digits"                        learning_rate = [5.0, 0.5]
    group = "Natural"                      weight_decay = [0.01, 0.0]

benchmark may also name what comes with vpt, such as "vtab" or ["vtab", "fgvc"]; data is then the folder of its tasks.

A table [segmentation], with head and activation_checkpointing, says that the tasks are folders of images and masks; [training] is
then a `SegmentationConfig`.

A method takes its settings from [training], then from its grid, then from its own keys, and what none of them names from
the method itself. Lists of learning_rate, weight_decay and spec are chosen from on val.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from vpt.backbones import DEFAULT, load_backbone, meta_backbone
from vpt.core.legacy_keys import upgrade_plan_file
from vpt.core.text import did_you_mean
from vpt.data.preprocessing import Preprocessing
from vpt.errors import BackboneError, SpecError
from vpt.experiments import benchmarks
from vpt.experiments.error_collector import ErrorCollector, check_keys
from vpt.experiments.experiment import Experiment, MethodRow, Protocol, SegmentationOptions, Task
from vpt.experiments.method_rows import as_list, find_baseline, parse_methods
from vpt.experiments.segmentation_tasks import MASK_KEYS, list_segmentation_task
from vpt.experiments.tasks import list_task
from vpt.model.tuned_model import TunedModel, attach
from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.segmentation.config import SegmentationConfig
from vpt.tasks.segmentation.task import default_head
from vpt.training.head_grid import check_head_grid

PLANS_DIR = Path(__file__).parent / "plans"
_PROTOCOL_KEYS = {field.name for field in fields(Protocol)}
_PLAN_KEYS = {
    "name",
    "backbone",
    "weights",
    "benchmark",
    "data",
    "baseline",
    "keep_tuned",
    "training",
    "grids",
    "tasks",
    "methods",
    "segmentation",
}
_TASK_KEYS = {"name", "data", "group", "resize", "augment"}
_SEGMENTATION_TASK_KEYS = {"name", "data", "group", *MASK_KEYS}


def builtin_plans() -> dict[str, Path]:
    """The plans that come with vpt, by name."""
    return {path.stem: path for path in sorted(PLANS_DIR.glob("*.toml"))}


def find_plan_file(plan: str) -> Path:
    """The file of a plan: a path, or the name of a shipped one. Raises SpecError where there is neither."""
    path = Path(plan)
    if path.is_file():
        return path
    if plan in builtin_plans():
        return builtin_plans()[plan]
    raise SpecError(
        f"there is no plan {plan!r}, neither a file nor one that comes with vpt; {did_you_mean(plan, builtin_plans())}"
    )


def load_experiment(path: Path, data: Path | None = None) -> Experiment:
    """Read a plan, list its data, load its backbone and try each method on it.

    data: the folder that holds the prepared tasks of a benchmark, if not the one that the plan names.

    Raises SpecError for a key or a value that cannot be, DataError for a task that cannot be read, BackboneError for
    the backbone, UnsupportedError for a method that finds no place on it: all of it before anything is run, and where there is
    more than one fault, all of them in one error of the first's kind.
    """
    values = _read_toml(path)
    try:
        return _parse_plan(values, path, data)
    except (TypeError, AttributeError) as error:  # a number where a text or a table belongs
        raise SpecError(f"{path} has a value of the wrong kind: {error}") from error


def _parse_plan(values: dict[str, Any], path: Path, data: Path | None) -> Experiment:
    collector = ErrorCollector(path)
    with collector.collect():
        check_keys(values, _PLAN_KEYS | _PROTOCOL_KEYS, str(path))
    protocol = Protocol()
    with collector.collect():
        protocol = _parse_protocol({key: value for key, value in values.items() if key in _PROTOCOL_KEYS}, path)
    segmentation = None
    with collector.collect():
        segmentation = _parse_segmentation(values, path)
    rows = parse_methods(values, path, collector, ClassificationConfig if segmentation is None else SegmentationConfig)
    tasks = _parse_tasks(values, path, data, protocol, segmentation, collector)
    for kind, names in (("tasks", [task.name for task in tasks]), ("methods", [row.name for row in rows])):
        with collector.collect():
            _check_distinct(kind, names, path)
    baseline = None
    with collector.collect():
        if not collector.errors:  # a row that was refused would be missed here once more
            baseline = find_baseline(values.get("baseline"), rows, path)
    backbone = str(values.get("backbone", DEFAULT))
    weights = None if values.get("weights") is None else (path.parent / values["weights"]).resolve()
    with collector.collect():
        if weights is not None and not weights.is_file():
            raise BackboneError(f"{path}: the weights {weights} are not there; paths are relative to the plan")
    with collector.collect():
        structure = meta_backbone(backbone, protocol.image_size)
        models: dict[str, TunedModel] = {}
        for spec in dict.fromkeys(setting.spec for row in rows for setting in row.settings):
            with collector.collect():
                head = None if segmentation is None else segmentation.head or default_head(structure.module)
                num_classes = max([2, *(task.classes for task in tasks)])
                models[spec] = attach(structure, spec, num_classes, head=head)
        rows = tuple(replace(row, is_head_grid=_is_head_grid(row, models)) for row in rows)
    collector.raise_collected()
    loaded = load_backbone(backbone, weights=weights, image_size=protocol.image_size)
    return Experiment(
        name=str(values.get("name", path.stem)),
        backbone=backbone,
        weights=None if weights is None else str(weights),
        fingerprint=loaded.fingerprint(),
        parameters=sum(weight.numel() for weight in loaded.module.parameters()),
        protocol=protocol,
        tasks=tasks,
        methods=rows,
        baseline=baseline,
        keep_tuned=bool(values.get("keep_tuned", True)),
        segmentation=segmentation,
    )


def _is_head_grid(row: MethodRow, models: Mapping[str, TunedModel]) -> bool:
    """Whether the runs of a row may be trained as a grid of heads."""
    specs = {setting.spec for setting in row.settings}
    if len(specs) != 1 or not specs <= models.keys() or models[next(iter(specs))].is_dense:
        return False
    try:
        check_head_grid(models[next(iter(specs))], [setting.config for setting in row.settings])
    except SpecError:
        return False
    return True


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return upgrade_plan_file(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not TOML: {error}") from error


def _parse_protocol(values: dict[str, Any], path: Path) -> Protocol:
    protocol = Protocol(**values)
    Preprocessing(resize=protocol.resize, interpolation=protocol.interpolation or "bilinear")  # raises for others
    if not isinstance(protocol.seeds, int) or protocol.seeds < 1:
        raise SpecError(f"{path}: seeds is {protocol.seeds}; it must be a whole number of at least 1")
    return protocol


def _parse_segmentation(values: Mapping[str, Any], path: Path) -> SegmentationOptions | None:
    """What [segmentation] says; None where it is not there, and the tasks are classification."""
    if "segmentation" not in values:
        return None
    check_keys(values["segmentation"], {"head", "activation_checkpointing"}, f"{path}: [segmentation]")
    classification_only = [
        key for key in ("benchmark", "train_fraction", "test_fraction", "resize", "interpolation") if key in values
    ]
    if classification_only:
        raise SpecError(f"{path} has {', '.join(classification_only)}, for classification alone, beside [segmentation]")
    return SegmentationOptions(**values["segmentation"])


def _parse_tasks(
    values: Mapping[str, Any],
    path: Path,
    data: Path | None,
    protocol: Protocol,
    segmentation: SegmentationOptions | None,
    collector: ErrorCollector,
) -> tuple[Task, ...]:
    """All tasks: those of the benchmark first. What is wrong goes to `collector`."""
    rows: list[tuple[Any, Path]] = []
    benchmark_names = as_list(values["benchmark"]) if "benchmark" in values else []
    if benchmarks.are_builtin(benchmark_names):
        data_from_plan = None if values.get("data") is None else path.parent / values["data"]
        with collector.collect():
            rows += [(row, path) for row in benchmarks.task_rows(benchmark_names, data or data_from_plan, path)]
    else:
        for benchmark_path in (path.parent / name for name in benchmark_names):
            with collector.collect():
                benchmark = _read_toml(benchmark_path)
                rows += [(row, benchmark_path) for row in benchmark.get("tasks", [])]
                check_keys(benchmark, {"name", "tasks"}, str(benchmark_path))
    rows += [(row, path) for row in values.get("tasks", [])]
    found = []
    for row, where in rows:
        with collector.collect():
            check_keys(row, _TASK_KEYS if segmentation is None else _SEGMENTATION_TASK_KEYS, f"{where}: a task")
            if "name" not in row:
                raise SpecError(f"{where}: the task {row} has no name; give it one")
            list_row = list_task if segmentation is None else list_segmentation_task
            found.append(list_row(row, where, protocol))
    with collector.collect():
        if benchmarks.are_builtin(benchmark_names):
            benchmarks.check_sizes(benchmark_names, found, path)
        elif not rows and not collector.errors:
            raise SpecError(f"{path} names no tasks; add [[tasks]] tables, or benchmark = a file that has them")
    return tuple(found)


def _check_distinct(kind: str, names: list[str], path: Path) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise SpecError(f"{path}: two {kind} are called {repeated[0]!r}; give each a name of its own")
