"""From the tables of a plan to an experiment: data are listed, backbones identified, methods tried."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from vpt.backbones import DEFAULT, load_backbone
from vpt.backbones.backbone import Backbone
from vpt.core.text import did_you_mean
from vpt.errors import BackboneError, SpecError, UnsupportedError
from vpt.experiments.benchmark_tasks import list_tasks
from vpt.experiments.design import MethodRow, Protocol, SegmentationOptions, Setting, Task
from vpt.experiments.error_collector import ErrorCollector
from vpt.experiments.experiment import Experiment
from vpt.experiments.plan_schema import JOB_KEYS, SEARCHED_KEYS, MethodTable, PlanTables
from vpt.methods.base import InitInputs
from vpt.methods.registry import parse_method
from vpt.model.attach import attach
from vpt.model.tuned_model import TunedModel
from vpt.tasks.registry import TASKS
from vpt.training import TaskConfig
from vpt.training.head_grid import check_head_grid


def resolve_plan(tables: PlanTables, path: Path, data: Path | None, collector: ErrorCollector) -> Experiment:
    """Return the experiment of a plan.

    Args:
        tables: Tables of the plan.
        path: File of the plan, for messages and relative paths.
        data: Folder with the prepared tasks of a benchmark; None takes the one that the plan names.
        collector: Errors so far; further ones are added, and all of them raised.

    Returns:
        The experiment of a plan.

    Raises:
        VptError: The plan cannot be run.
    """
    given = tables.given()
    protocol = Protocol(**{field.name: given[field.name] for field in fields(Protocol) if field.name in given})
    options = getattr(tables, "segmentation", None)
    segmentation = None if options is None else SegmentationOptions(**options.model_dump())
    rows = _read_methods(tables, path, collector)
    tasks = list_tasks(tables, path, data, protocol, collector, choosing=any(len(row.settings) > 1 for row in rows))
    for kind, names in (("tasks", [task.name for task in tasks]), ("methods", [row.name for row in rows])):
        with collector.collect():
            _check_distinct(kind, names, path)
    baseline = None
    with collector.collect():
        if not collector.errors:  # a row that was refused would be missed here once more
            _check_task_names(rows, tasks, path)
            _check_references(rows, tables, path)
            baseline = _find_baseline(tables.baseline, rows, path)
    backbones = _Backbones(tables, path)
    with collector.collect():
        backbones.check_weights()
    classes = max([2, *(task.classes for task in tasks)])
    for index, row in enumerate(rows):
        with collector.collect():
            rows[index] = _try_methods(row, backbones, segmentation, classes, report=tables.unsupported == "report")
    collector.raise_collected()
    _check_runnable(rows, path)
    rows = [backbones.identify(row) for row in rows]
    base = backbones.load({})
    return Experiment(
        name=tables.name or path.stem,
        backbone=backbones.name({}),
        weights=None if backbones.weights is None else str(backbones.weights),
        fingerprint=base.fingerprint(),
        parameters=sum(weight.numel() for weight in base.module.parameters()),
        protocol=protocol,
        tasks=tasks,
        methods=tuple(rows),
        baseline=baseline,
        keep_tuned=tables.keep_tuned,
        segmentation=segmentation,
    )


class _Backbones:
    """The backbones of a plan: one, and those of rows with a backbone or an image size of their own."""

    def __init__(self, tables: PlanTables, path: Path) -> None:
        self.path, self.tables = path, tables
        self.weights = None if tables.weights is None else (path.parent / tables.weights).resolve()
        self.load_cached = cache(load_backbone)

    def check_weights(self) -> None:
        if self.weights is not None and not self.weights.is_file():
            raise BackboneError(
                f"{self.path}: the weights {self.weights} are not there; paths are relative to the plan"
            )

    def name(self, options: Mapping[str, Any]) -> str:
        return str(options.get("backbone", self.tables.backbone or DEFAULT))

    def structure(self, options: Mapping[str, Any]) -> Backbone:
        size = options.get("image_size", self.tables.image_size)
        return self.load_cached(self.name(options), image_size=size, device="meta")

    def load(self, options: Mapping[str, Any]) -> Backbone:
        size = options.get("image_size", self.tables.image_size)
        return self.load_cached(self.name(options), weights=self.weights, image_size=size)

    def identify(self, row: MethodRow) -> MethodRow:
        """Return a row with the fingerprint of its backbone, where it has one of its own."""
        if row.refusal or not {"backbone", "image_size"} & row.job_options.keys():
            return row
        return replace(row, fingerprint=self.load(row.job_options).fingerprint())


def _read_methods(tables: PlanTables, path: Path, collector: ErrorCollector) -> list[MethodRow]:
    """Return the rows of `methods`, each with what [training], its grid, its own keys and those for a task say."""
    rows = []
    for table in tables.methods:
        with collector.collect():
            rows.append(_read_method(table, tables, path))
    if not tables.methods and not collector.errors:
        collector.errors.append(
            SpecError(f'{path} names no methods; add some, such as methods = ["linear", "vpt(length=10)"]')
        )
    return rows


def _read_method(table: MethodTable, tables: PlanTables, path: Path) -> MethodRow:
    name = table.name or " | ".join(str(parse_method(spec)) for spec in table.spec or [f"ensemble {table.ensemble_of}"])
    options = {key: value for key, value in table.given().items() if key in JOB_KEYS}
    if (table.spec is None) == (table.ensemble_of is None):
        raise SpecError(f'{path}: the method {name!r} needs either spec or ensemble_of; write spec = "vpt(length=10)"')
    if table.ensemble_of is not None:
        return MethodRow(name, (), job_options=options, ensemble_of=table.ensemble_of)
    if table.grid is not None and table.grid not in tables.grids:
        raise SpecError(f"{path}: there is no grid {table.grid!r}; {did_you_mean(table.grid, tables.grids)}")
    grid = tables.grids[table.grid].given() if table.grid is not None else {}
    keys = tables.config_class.option_names() - {"seed"}
    own = {key: value for key, value in table.given().items() if key in keys}
    values = {**tables.training.given(), **grid, **own}
    try:
        settings = _settings(table.spec or [], values, tables.config_class)
        by_task = {task: _settings(table.spec or [], {**values, **more.given()}, tables.config_class)
                   for task, more in table.task.items()}  # fmt: skip
    except SpecError as error:
        raise SpecError(f"{path}: the method {name!r}: {error}") from error
    split_seed = options.get("split_seed", tables.split_seed)
    if split_seed is None and max(map(len, (settings, *by_task.values()))) > 1:
        raise SpecError(
            f'{path}: the method {name!r} has several settings, and with split_seed = "run" the test images of one run '
            "select the setting of another; give split_seed a number"
        )
    return MethodRow(name, settings, task_settings=by_task, job_options=options)


def _settings(specs: Sequence[str], values: Mapping[str, Any], config_class: type[TaskConfig]) -> tuple[Setting, ...]:
    """Return all combinations of methods, learning rates and weight decays."""
    single = {key: value for key, value in values.items() if key not in SEARCHED_KEYS}
    choices = [values.get(key) or [None] for key in SEARCHED_KEYS]
    settings = []
    for method, *chosen in itertools.product(map(parse_method, specs), *choices):
        config = config_class.for_method(method, **single, **dict(zip(SEARCHED_KEYS, chosen, strict=True)))
        settings.append(Setting(method.spec(full=True), config))
    return tuple(dict.fromkeys(settings))


def _try_methods(
    row: MethodRow, backbones: _Backbones, segmentation: SegmentationOptions | None, classes: int, *, report: bool
) -> MethodRow:
    """Return a row after each of its methods was injected into the bare structure of its backbone.

    Args:
        row: The row.
        backbones: Backbones of the plan.
        segmentation: Options of segmentation tasks.
        classes: Largest number of classes.
        report: Give the reason in the row where the backbone does not support the method, instead of raising it.
    """
    try:
        models = {}
        for spec in dict.fromkeys(setting.spec for setting in row.settings):
            structure = backbones.structure(row.job_options)
            head = row.job_options.get("head", None if segmentation is None else segmentation.head)
            task = TASKS["classification" if segmentation is None else "segmentation"]
            models[spec] = model = attach(structure, spec, classes, head=task.make_readout(head, structure))
            if "prototypes" in model.method.init_inputs:
                model.initialize(InitInputs(torch.empty(classes, model.layout.width, device="meta")))
    except (SpecError, UnsupportedError, BackboneError) as error:
        if not report:
            raise
        return replace(row, refusal=str(error))
    return replace(row, is_head_grid=_is_head_grid(row, models))


def _is_head_grid(row: MethodRow, models: Mapping[str, TunedModel]) -> bool:
    """Return whether the runs of a row may train as a grid of heads."""
    if len(models) != 1 or (model := next(iter(models.values()))).is_dense:
        return False
    try:
        for settings in (row.settings, *row.task_settings.values()):
            check_head_grid(model, [setting.config for setting in settings])
    except SpecError:
        return False
    return True


def _check_distinct(kind: str, names: Sequence[str], path: Path) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise SpecError(f"{path}: two {kind} are called {repeated[0]!r}; give each a name of its own")


def _check_task_names(rows: Sequence[MethodRow], tasks: Sequence[Task], path: Path) -> None:
    names = {task.name for task in tasks}
    for row in rows:
        for name in row.task_settings.keys() - names:
            raise SpecError(f"{path}: the method {row.name!r} has keys for {name!r}; {did_you_mean(name, names)}")


def _check_references(rows: list[MethodRow], tables: PlanTables, path: Path) -> None:
    """Check the rows that ensembles refer to; refuse an ensemble of one run."""
    trained = {row.name: row for row in rows if not row.ensemble_of}
    for index, row in enumerate(rows):
        if not row.ensemble_of:
            continue
        if row.ensemble_of not in trained:
            hint = did_you_mean(row.ensemble_of, trained)
            raise SpecError(f"{path}: {row.name!r} is an ensemble of {row.ensemble_of!r}, which is no method; {hint}")
        members = trained[row.ensemble_of]
        reason = ""
        if tables.seeds < 2:
            reason = "1 run makes no ensemble; give seeds 2 or more"
        elif members.job_options.get("split_seed", tables.split_seed) is None:
            reason = 'split_seed = "run" gives each run other test images; give split_seed a number'
        elif not tables.keep_tuned or hasattr(tables, "segmentation"):
            reason = "an ensemble needs keep_tuned = true and classification tasks"
        if reason and tables.unsupported == "error":
            raise SpecError(f"{path}: the ensemble {row.name!r} cannot be made: {reason}")
        rows[index] = replace(row, job_options=members.job_options, refusal=reason)


def _find_baseline(name: str | None, rows: Sequence[MethodRow], path: Path) -> str | None:
    """Return the row that others are compared with: the one named, or else full fine-tuning where it is there."""
    if name is not None and name not in [row.name for row in rows]:
        raise SpecError(f"{path}: baseline is {name!r}; {did_you_mean(name, [row.name for row in rows])}")
    full = (row.name for row in rows if row.settings and parse_method(row.settings[0].spec).name == "full")
    return name or next(full, None)


def _check_runnable(rows: list[MethodRow], path: Path) -> None:
    """Refuse ensembles of refused rows, and a plan of which no row can be run."""
    refusals = {row.name: row.refusal for row in rows}
    for index, row in enumerate(rows):
        if row.ensemble_of and refusals[row.ensemble_of]:
            rows[index] = replace(row, refusal=refusals[row.ensemble_of])
    if all(row.refusal for row in rows):
        raise SpecError(f"{path}: no method can be run; the first one is refused: {rows[0].refusal}")
