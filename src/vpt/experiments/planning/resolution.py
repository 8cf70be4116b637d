"""From the tables of a plan to an experiment: data are listed, backbones identified, methods tried."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from vpt.backbones import DEFAULT, load_backbone
from vpt.backbones.backbone import Backbone
from vpt.core.text import did_you_mean
from vpt.errors import BackboneError, SpecError, UnsupportedError, VptError
from vpt.experiments.design import CLASSIFICATION_ONLY, MethodRow, Protocol, SegmentationOptions, Setting, Task
from vpt.experiments.experiment import Experiment
from vpt.experiments.planning.benchmark_tasks import list_tasks, read_task_files
from vpt.experiments.planning.schema import JOB_KEYS, SEARCHED_KEYS, MethodTable, PlanTables, plan_model
from vpt.experiments.planning.validation import ErrorCollector, named_path, validate
from vpt.experiments.selection_checks import check_split_seed, check_splits
from vpt.methods.init_inputs import InitInputs
from vpt.methods.registry import parse_method
from vpt.model.attach import attach
from vpt.model.tuned_model import TunedModel
from vpt.protocols import Departure, apply_protocol
from vpt.tasks.classification.ridge_head import trains_first, wide_model
from vpt.tasks.registry import TASKS
from vpt.tasks.segmentation.config import SegmentationConfig
from vpt.tasks.segmentation.discriminant import check_head
from vpt.training import TaskConfig
from vpt.training.head_grid import check_head_grid


def resolve_plan(
    values: dict[str, Any], path: Path, data: Path | None = None, *, for_estimate: bool = False
) -> Experiment:
    """Return the experiment of a plan.

    Args:
        values: Parsed tables and keys of the plan.
        path: File of the plan, for messages and relative paths.
        data: Folder with the prepared tasks of a benchmark; None takes the one that the plan names.
        for_estimate: The experiment is for `estimate_cost` alone: no weights are loaded, and tasks of benchmarks that
            are not prepared have the sizes of the catalog. Default: False.

    Returns:
        The experiment of a plan.

    Raises:
        VptError: The plan cannot be run. All errors are in one, of the class of the first.
    """
    collector = ErrorCollector(str(path))
    values, departures = apply_protocol(values)
    tables = validate(plan_model(segmentation="segmentation" in values), values, str(path), collector)
    given = tables.given()
    protocol = Protocol(**{field.name: given[field.name] for field in fields(Protocol) if field.name in given})
    options = getattr(tables, "segmentation", None)
    segmentation = None if options is None else SegmentationOptions(**options.model_dump())
    rows = _read_methods(tables, protocol, path, collector)
    file_rows = read_task_files(tables, path, collector)
    if tables.protocol is not None:  # it has no such task, as it has none of the rows of the plan itself
        departures += tuple(Departure(f"tasks.{row.name}", None, row.given()) for row, _ in file_rows)
    tasks = list_tasks(tables, file_rows, path, data, protocol, collector, for_estimate=for_estimate)
    for task in tasks:
        with collector.collect():
            check_splits(task, tasks, rows, protocol, str(path))
    _check_distinct("tasks", [task.name for task in tasks], path, collector)
    _check_distinct("methods", [row.name for row in rows], path, collector)
    baseline = None
    with collector.collect():
        if not collector.errors:  # a row that was refused would be missed here once more
            _check_task_names(rows, tasks, path)
            _check_selecting_tasks(rows, tasks, path)
            _check_references(rows, tables, protocol, path)
            baseline = _find_baseline(tables.baseline, rows, path)
    weights = None
    with collector.collect():
        weights = None if tables.weights is None else named_path(tables.weights, path, path).resolve()
    if weights is not None and not weights.is_file():
        text = f"{path}: the weights {weights} are not there; paths are relative to the plan"
        collector.errors.append(BackboneError(text))
    load = partial(_load, cache(load_backbone), tables.backbone or DEFAULT, protocol.image_size)
    classes = max([2, *(task.classes for task in tasks)])
    for index, row in enumerate(rows):
        try:
            rows[index] = _try_methods(row, partial(load, row.job_options, device="meta"), segmentation, classes)
        except VptError as error:
            if tables.unsupported == "report" and isinstance(error, SpecError | UnsupportedError | BackboneError):
                rows[index] = replace(row, refusal=str(error))
            else:
                collector.errors.append(error)
    collector.raise_collected()
    _check_runnable(rows, path)
    for index, row in enumerate(rows):
        if not row.refusal and not for_estimate and {"backbone", "image_size"} & row.job_options.keys():
            own = load(row.job_options, weights=weights)
            rows[index] = replace(
                row, fingerprint=own.weights_digest(), source=own.source, parameters=_count_parameters(own)
            )
    base = load({}, device="meta") if for_estimate else load({}, weights=weights)
    return Experiment(
        name=tables.name or path.stem,
        backbone=tables.backbone or DEFAULT,
        weights=None if weights is None else str(weights),
        fingerprint="" if for_estimate else base.weights_digest(),
        source=base.source,
        parameters=_count_parameters(base),
        protocol=protocol,
        tasks=tasks,
        methods=tuple(rows),
        baseline=baseline,
        keep_tuned=tables.keep_tuned,
        segmentation=segmentation,
        protocol_name=tables.protocol,
        departures=departures,
    )


def _load(
    load_cached: Callable[..., Backbone], name: str, size: int | None, options: Mapping[str, Any], **more: Any
) -> Backbone:
    """Return the backbone of a row: that of the plan, unless the options of the row have another name or size."""
    return load_cached(options.get("backbone", name), image_size=options.get("image_size", size), **more)


def _count_parameters(backbone: Backbone) -> int:
    return sum(weight.numel() for weight in backbone.module.parameters())


def _read_methods(tables: PlanTables, protocol: Protocol, path: Path, collector: ErrorCollector) -> list[MethodRow]:
    """Return the rows of `methods`, each with what [training], its grid, its own keys and those for a task say."""
    rows = []
    for table in tables.methods:
        with collector.collect():
            rows.append(_read_method(table, tables, protocol, path))
    if not tables.methods and not collector.errors:
        text = f'{path} names no methods; add some, such as methods = ["linear", "vpt(length=10)"]'
        collector.errors.append(SpecError(text))
    return rows


def _read_method(table: MethodTable, tables: PlanTables, protocol: Protocol, path: Path) -> MethodRow:
    variants = table.variants or [table]
    specs = [str(parse_method(spec)) for variant in variants for spec in variant.spec or ()]
    name, given = table.name or " | ".join(specs or [f"ensemble {table.ensemble_of}"]), table.given()
    options = {key: value for key, value in given.items() if key in JOB_KEYS}
    has_masks = tables.config_class is SegmentationConfig
    foreign = [key for key in (("ridge", *CLASSIFICATION_ONLY) if has_masks else ("lda",)) if key in options]
    if foreign:
        kind = "segmentation" if has_masks else "classification"
        raise SpecError(f"{path}: the method {name!r} gives {foreign[0]}, which {kind} does not have; remove it")
    if sum(map(bool, (table.spec, table.ensemble_of, table.variants))) != 1:
        raise SpecError(
            f'{path}: the method {name!r} needs one of spec, variants and ensemble_of; write spec = "vpt(length=10)"'
        )
    if table.ensemble_of is not None:
        if unused := given.keys() - {"name", "ensemble_of"}:
            raise SpecError(
                f"{path}: the ensemble {name!r} gives {min(unused)}, which changes nothing: it scores the runs of "
                f"{table.ensemble_of!r}; give it there"
            )
        return MethodRow(name, (), job_options=options, ensemble_of=table.ensemble_of)
    if table.grid is not None and table.grid not in tables.grids:
        hint = did_you_mean(table.grid, tables.grids) if tables.grids else f"add a table [grids.{table.grid}]"
        raise SpecError(f"{path}: there is no grid {table.grid!r}; {hint}")
    grid = tables.grids[table.grid].given() if table.grid is not None else {}
    values = {**tables.training.given(), **grid, **_training_keys(given, tables)}

    def settings_with(more: Mapping[str, Any]) -> tuple[Setting, ...]:
        """Return all combinations of methods, learning rates and weight decays; `more` comes before other keys."""
        return tuple(
            dict.fromkeys(
                setting
                for variant in variants
                for setting in _settings(
                    variant.spec, {**values, **_training_keys(variant.given(), tables), **more}, tables.config_class
                )
            )
        )

    try:
        settings = settings_with({})
        own_settings = {task: settings_with(more.given()) for task, more in table.task.items()}
    except SpecError as error:
        raise SpecError(f"{path}: the method {name!r}: {error}") from error
    row = MethodRow(name, settings, task_settings=own_settings, job_options=options)
    check_split_seed(row, protocol, str(path))
    return row


def _training_keys(given: Mapping[str, Any], tables: PlanTables) -> dict[str, Any]:
    names = tables.config_class.option_names() - {"seed"}
    return {key: value for key, value in given.items() if key in names}


def _settings(specs: Sequence[str], values: Mapping[str, Any], config_class: type[TaskConfig]) -> Iterator[Setting]:
    """Yield all combinations of methods, learning rates and weight decays."""
    single = {key: value for key, value in values.items() if key not in SEARCHED_KEYS}
    choices = [values.get(key) or [None] for key in SEARCHED_KEYS]
    for method, *chosen in itertools.product(map(parse_method, specs), *choices):
        config = config_class.for_method(method, **single, **dict(zip(SEARCHED_KEYS, chosen, strict=True)))
        yield Setting(method.spec(full=True), config)


def _try_methods(
    row: MethodRow, load: Callable[[], Backbone], segmentation: SegmentationOptions | None, classes: int
) -> MethodRow:
    """Return a row after each of its methods was injected into the bare structure of its backbone.

    Args:
        row: The row.
        load: Loads that structure.
        segmentation: Options of segmentation tasks.
        classes: Largest number of classes.
    """
    task = TASKS["classification" if segmentation is None else "segmentation"]
    head = row.job_options.get("head", None if segmentation is None else segmentation.head)
    models = {}
    for spec in dict.fromkeys(setting.spec for setting in row.settings):
        structure = load()
        method = parse_method(spec).without_initial_weights()
        readout = task.make_readout(head, structure)
        if "lda" in row.job_options:
            check_head(readout)
        joins = trains_first(method, row.job_options.get("ridge"))
        models[spec] = model = attach(structure, method, classes, head=None if joins else readout)
        if joins:
            wide_model(model, readout)  # refuses what a ridge head cannot join
        if "prototypes" in model.method.init_inputs:
            model.initialize(InitInputs(torch.empty(classes, model.layout.width, device="meta")))
    return replace(row, is_head_grid=_is_head_grid(row, models))


def _is_head_grid(row: MethodRow, models: Mapping[str, TunedModel]) -> bool:
    """Return whether the runs of a row may train as a grid of heads."""
    if len(models) != 1 or (model := next(iter(models.values()))).is_dense:
        return False
    with suppress(SpecError):
        for settings in (row.settings, *row.task_settings.values()):
            check_head_grid(model, [setting.config for setting in settings])
        return True
    return False


def _check_distinct(kind: str, names: Sequence[str], path: Path, collector: ErrorCollector) -> None:
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        collector.errors.append(SpecError(f"{path}: two {kind} are called {repeated!r}; give each a name of its own"))


def _check_task_names(rows: Sequence[MethodRow], tasks: Sequence[Task], path: Path) -> None:
    names = {task.name for task in tasks}
    for row in rows:
        for name in row.task_settings.keys() - names:
            raise SpecError(f"{path}: the method {row.name!r} has keys for {name!r}; {did_you_mean(name, names)}")


def _check_selecting_tasks(rows: Sequence[MethodRow], tasks: Sequence[Task], path: Path) -> None:
    """Check that settings are taken from a task that selects its own, by tasks without settings of their own."""
    selecting = {task.name for task in tasks if task.settings_from is None}
    for task in (task for task in tasks if task.settings_from is not None):
        text = f"{path}: the task {task.name!r} has settings_from = {task.settings_from!r}"
        if task.settings_from == task.name:
            raise SpecError(f"{text}, which is itself; leave the key out, so that it selects its own")
        if task.settings_from in {other.name for other in tasks} - selecting:
            raise SpecError(f"{text}, which takes its settings from another task itself; name one that selects its own")
        if task.settings_from not in selecting:
            raise SpecError(f"{text}, which is no task; {did_you_mean(str(task.settings_from), selecting)}")
        row = next((row for row in rows if task.name in row.task_settings), None)
        if row is not None:
            raise SpecError(f"{text}, and the method {row.name!r} has keys for {task.name!r}; remove one of the two")


def _check_references(rows: list[MethodRow], tables: PlanTables, protocol: Protocol, path: Path) -> None:
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
        if protocol.seeds < 2:
            reason = "1 run makes no ensemble; give seeds 2 or more"
        elif members.job_options.get("split_seed", protocol.split_seed) is None:
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
