"""A series of the paper's ablations on the user's data: an experiment with a row for each point.

The folder is that of the experiment; besides, it holds results.json, table.md and NAME.png.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vpt.backbones import DEFAULT, load_backbone
from vpt.backbones.layout import read_layout
from vpt.core.io import write_atomic
from vpt.core.text import file_stem
from vpt.data.loading import load_dataset
from vpt.errors import SpecError
from vpt.experiments.ablations.report import Ablation, PointResult, write_ablation
from vpt.experiments.ablations.series import Point, Series, SeriesContext
from vpt.experiments.design import MethodRow
from vpt.experiments.experiment import Experiment
from vpt.experiments.planning.resolution import resolve_plan
from vpt.experiments.results import load_results
from vpt.experiments.running.local_executor import InlineExecutor
from vpt.experiments.running.runner import Executor, raise_errors, run_experiment
from vpt.experiments.running.worker import result_record
from vpt.experiments.selection import resolved_runs
from vpt.experiments.store import Store
from vpt.methods.base import Method, Sum
from vpt.methods.registry import parse_method
from vpt.tasks.classification.config import ClassificationConfig
from vpt.training.callbacks import Callback
from vpt.training.run_directory import load_finished_result

SEEDS = 3
_METHOD_SPECIFIC = ("optimizer", "learning_rate", "weight_decay")  # values for one kind of method may ruin another


def ablate(
    series: Series,
    data: str,
    folder: Path,
    *,
    method: str = "vpt",
    backbones: Sequence[str] = (DEFAULT,),
    seeds: int = SEEDS,
    options: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    callback: Callback | None = None,
    overwrite: bool = False,
) -> Ablation:
    """Run a series on a dataset, or resume it.

    A point that the backbone does not support is found before any training; the table gives the reason.

    Args:
        series: The series.
        data: Folder of images, or a built-in task.
        folder: Folder of the series.
        method: Base method; the series keeps its fields except those that it varies.
        backbones: Names of backbones; several for the series `backbone`.
        seeds: Number of runs of each point. Default: 3.
        options: Fields of the training configuration and of the job, such as epochs or image_size. optimizer,
            learning_rate and weight_decay are for the base and its variants; other methods train with their own.
        executor: Does the runs; None does them in this process.
        callback: Callback that receives the events of the runs.
        overwrite: Do all runs again. Default: False.

    Returns:
        The series with its results.

    Raises:
        SpecError: No point can be run, or the options contradict each other.
        VptError: A run ended in an error.
    """
    base = parse_method(method)
    options = {name: value for name, value in (options or {}).items() if value is not None}
    names = ClassificationConfig.option_names()
    config_options = {name: value for name, value in options.items() if name in names}
    job_options = {name: value for name, value in options.items() if name not in names}
    context = _make_context(data, base, tuple(backbones), job_options)
    points = list(series.points(context))
    if any("backbone" in point.job for point in points) != (len(backbones) > 1):
        raise SpecError(
            f"the series {series.name} was given {len(backbones)} backbones; the series `backbone` compares two or "
            "more, give --backbone for each; any other takes one"
        )
    if len(backbones) > 1 and "weights" in job_options:
        raise SpecError("--weights belong to one backbone, and several are compared; leave them to be downloaded")
    methods, refusals = list[dict[str, Any]](), dict[str, str]()
    for point in points:
        try:
            methods.append(_method_table(point, base, config_options))
        except SpecError as error:
            refusals[point.label] = str(error)
    if not methods:
        reason = next(iter(refusals.values()))
        raise SpecError(f"no point of the series {series.name} can be run; the first one: {reason}")
    values = _plan_values(series, data, context, config_options, job_options)
    experiment = resolve_plan({**values, "seeds": seeds, "methods": methods}, Path(f"the series {series.name}"))
    rows = {row.name: row for row in experiment.methods}
    rows |= {label: MethodRow(label, (), refusal=refusal) for label, refusal in refusals.items()}
    experiment = replace(experiment, methods=tuple(rows[point.label] for point in points))
    if not overwrite:
        _reuse_results(experiment, data, folder)
    records = run_experiment(experiment, folder, executor or InlineExecutor(), callback, overwrite=overwrite)

    store = Store(folder)
    cells = {cell.method: cell for cell in load_results(store).cells.values()}
    chosen = {**config_options, **job_options}
    chosen = {name: value if isinstance(value, int | float) else str(value) for name, value in chosen.items()}
    settings = {"data": data, "method": context.base, "backbones": list(backbones), "seeds": seeds, **chosen}
    ablation = Ablation(series, settings, tuple(PointResult(point, cells[point.label], store) for point in points))
    write_ablation(ablation, folder)
    raise_errors(records)
    return ablation


def _make_context(data: str, base: Method, backbones: tuple[str, ...], job_options: Mapping[str, Any]) -> SeriesContext:
    structure = load_backbone(backbones[0], image_size=job_options.get("image_size"), device="meta")
    layout = read_layout(structure.module, structure.preprocessing)
    split_options = {name: job_options[name] for name in ("val_fraction", "test_fraction") if name in job_options}
    classes, size = len(load_dataset(data, **split_options).classes), structure.preprocessing.size
    return SeriesContext(str(base), classes, backbones, len(layout.blocks), size, layout.patch_size)


def _method_table(point: Point, base: Method, config_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of `methods` of a point. Raises SpecError for what cannot be combined."""
    if point.ensemble_of is not None:
        return {"name": point.label, "ensemble_of": replace(point, x=point.ensemble_of).label}
    method = point.method_for(base)
    like_base = _first_method_name(method) == _first_method_name(base)
    own = {key: config_options[key] for key in _METHOD_SPECIFIC if key in config_options and like_base}
    return {"name": point.label, "spec": str(method), **own, **point.job}


def _plan_values(
    series: Series, data: str, context: SeriesContext, config_options: Mapping[str, Any], job_options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keys of the plan, without seeds and methods."""
    path = Path(data)
    name = path.name or "data"
    weights = {"weights": str(Path(job_options["weights"]).resolve())} if "weights" in job_options else {}
    return {
        "name": f"{name}, {series.title}",
        "backbone": context.backbones[0],
        "split_seed": "run",
        "train_on": "train",
        "unsupported": "report",
        "training": {key: value for key, value in config_options.items() if key not in _METHOD_SPECIFIC},
        "tasks": [{"name": name, "data": str(path.resolve()) if path.is_dir() else data}],
        **job_options,
        **weights,
    }


def _reuse_results(experiment: Experiment, data: str, folder: Path) -> None:
    """Record the finished runs of a series by version 0.1.0, which ran a job named after point and seed for each."""
    store = Store(folder)
    if store.records():
        return
    experiment = experiment.with_all_decaying()
    for run in resolved_runs(experiment, {}).values():
        out = folder / f"{file_stem(run.method)}-{run.setting.config.training.seed}.safetensors"
        if run.members or store.has_record(run.id) or not out.exists():
            continue
        try:
            result = load_finished_result(replace(experiment.make_job(run, out), data=data))
        except SpecError:  # a run with other settings
            continue
        if result is not None:
            write_atomic(store.tuned_path(run.id), out.read_bytes())
            store.write(result_record(run, result))


def _first_method_name(method: Method) -> str:
    return method.terms[0].name if isinstance(method, Sum) else method.name
