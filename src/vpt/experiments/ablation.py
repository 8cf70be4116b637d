"""One series of the paper's ablations on the user's data: a `tune` job for each point and seed, a table and a picture.

A folder holds all of it: the tuned files and their run folders, results.json, table.md and NAME.png. The same series
again goes on where it stopped; a finished run is only read.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vpt.backbones import DEFAULT, load_backbone, meta_backbone
from vpt.backbones.layout import read_layout
from vpt.core.io import write_atomic
from vpt.data.loading import load_dataset
from vpt.errors import BackboneError, SpecError, TrainingError, UnsupportedError
from vpt.experiments.ablation_series import Point, Series, SeriesContext
from vpt.methods.base import InitInputs, Method, Sum
from vpt.methods.registry import parse_method
from vpt.model.tuned_file import load
from vpt.model.tuned_model import TunedModel
from vpt.plots import figures
from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.classification.prediction import evaluate_ensemble
from vpt.training import Callback
from vpt.training.job import Job, RunResult
from vpt.tuning import run_job

SEEDS = 3
_METHOD_SPECIFIC = ("optimizer", "learning_rate", "weight_decay")  # what is good for one kind may ruin another


@dataclass(frozen=True)
class PointResult:
    """A point and what came of it.

    method: its text; empty where it cannot be. jobs: one per seed. runs: of those that were finished.
    error: why runs are missing: "refused: ..." where the point cannot be, "diverged: ..." where its loss did.
    ensemble_top1: top-1 of all runs as one model, where the point asks for that.
    """

    point: Point
    method: str = ""
    jobs: tuple[Job, ...] = ()
    runs: tuple[RunResult, ...] = ()
    error: str = ""
    ensemble_top1: float | None = None

    @property
    def top1(self) -> list[float]:
        """Top-1 of each run, between 0 and 1; of all together, where they answer as one."""
        return [run.score for run in self.runs] if self.ensemble_top1 is None else [self.ensemble_top1]

    @property
    def mean(self) -> float | None:
        """Mean top-1; None where there is no run."""
        return statistics.mean(self.top1) if self.runs else None

    @property
    def std(self) -> float | None:
        """Standard deviation of top-1 over seeds; None for fewer than two."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else None

    @property
    def top1_text(self) -> str:
        """Top-1 in percent for a table, and any trouble."""
        parts = [f"{100 * self.mean:.1f}"] if self.mean is not None else []
        if self.std is not None:
            parts.append(f"± {100 * self.std:.1f}")
        if self.error:
            parts += [f"(n = {len(self.runs)})"] * bool(self.runs) + [self.error]
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "x": self.point.x,
            "curve": self.point.curve,
            "method": self.method,
            "status": "done" if not self.error else self.error.partition(":")[0],
            "error": self.error,
            "mean": self.mean,
            "std": self.std,
            "n": len(self.top1),
            "top1": self.top1,
            "seeds": [job.config.training.seed for job in self.jobs],
            "job": {**self.point.job},
            "config": self.jobs[0].config.to_dict() if self.jobs else None,
            **{
                name: getattr(self.runs[0], name) if self.runs else None
                for name in (
                    "backbone",
                    "eval_split",
                    "images",
                    "trainable_parameters",
                    "total_parameters",
                    "file_bytes",
                )
            },
            "seconds": [run.seconds for run in self.runs],
            "files": [run.file for run in self.runs],
        }


@dataclass(frozen=True)
class Ablation:
    """A series that was run. settings: all that was chosen for it."""

    series: Series
    context: SeriesContext
    settings: dict[str, Any]
    rows: tuple[PointResult, ...]

    @property
    def notes(self) -> list[str]:
        """What the user should know, each once."""
        return list(dict.fromkeys(note for row in self.rows for run in row.runs for note in run.notes))

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Hardware and versions of the runs: more than one where a series was begun here and ended there."""
        found: list[dict[str, Any]] = []
        for run in (run for row in self.rows for run in row.runs):
            if run.environment not in found:
                found.append(run.environment)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "series": self.series.name,
            "title": self.series.title,
            "source": self.series.source,
            "x": self.series.x,
            "settings": self.settings,
            "points": [row.to_dict() for row in self.rows],
            "notes": self.notes,
            "environments": self.environments,
        }

    def table_cells(self) -> list[list[str]]:
        """The table as text: a row of names, then a row for each point."""
        seeds = self.settings["seeds"]
        names = [self.series.x, "method", "trained", "share", "training, s", "top-1, %"]
        names[-1] += f", mean ± sd of {seeds}" * (seeds > 1)
        return [names, *(_table_cells(row) for row in self.rows)]

    def to_markdown(self) -> str:
        """The same table for a text file."""
        first, *rest = ([cell.replace("|", "\\|") for cell in row] for row in self.table_cells())
        rule = [":--", ":--", *["--:"] * (len(first) - 2)]
        return "".join(f"| {' | '.join(row)} |\n" for row in (first, rule, *rest))


def ablate(
    series: Series,
    data: str,
    folder: Path,
    *,
    method: str = "vpt",
    backbones: Sequence[str] = (DEFAULT,),
    seeds: int = SEEDS,
    config_options: Mapping[str, Any] | None = None,
    job_options: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
    overwrite: bool = False,
) -> Ablation:
    """Run `series` on `data` with seeds 0, 1, ...; what is done in `folder` already is only read.

    method: the base; a series keeps its fields but those it varies. config_options: of the recipe; optimizer, learning_rate
    and weight_decay are for the base and its variants, and other methods train with their own. job_options: of the job.

    A point that cannot be is found before any training, and stands in the table with the reason; one that diverges
    stands there too. Raises SpecError where no point can be, and for a folder whose runs have other settings.
    """
    callback = callback or Callback()
    base, job_options = parse_method(method), dict(job_options or {})
    config_options = {name: value for name, value in (config_options or {}).items() if value is not None}
    context = _make_context(data, base, tuple(backbones), job_options)
    points = list(series.points(context))
    if any("backbone" in point.job for point in points) != (len(backbones) > 1):
        raise SpecError(
            f"the series {series.name} was given {len(backbones)} backbones; the series `backbone` compares two or "
            "more, give --backbone for each; any other takes one"
        )
    if len(backbones) > 1 and job_options.get("weights"):
        raise SpecError("--weights belong to one backbone, and several are compared; leave them to be fetched")

    rows = [_plan_row(point, base, context, data, folder, seeds, config_options, job_options) for point in points]
    if all(row.error for row in rows):
        raise SpecError(f"no point of the series {series.name} can be run; the first is {rows[0].error}")
    rows = _deduplicate_jobs(rows)
    results: dict[Path, RunResult | str] = {}  # of each job, or how it diverged
    total = len({job.out for row in rows if row.point.ensemble_of is None for job in row.jobs})
    for row in rows:
        for job in row.jobs if row.point.ensemble_of is None else ():
            if job.out in results:  # at the end of two lines, such as all blocks from the bottom and from the top
                continue
            callback.on_run_start(
                len(results) + 1, total, f"{series.name} {row.point.x}  {row.method}", job.config.training.seed
            )
            try:
                results[job.out] = run_job(job, callback, overwrite=overwrite)
            except TrainingError as error:
                results[job.out] = f"diverged: {_one_line(error)}"
    rows = [_with_results(row, results) for row in rows]
    rows = [row if row.point.ensemble_of is None or row.error else _evaluate_ensemble(row, rows) for row in rows]

    chosen = {name: value if isinstance(value, int | float) else str(value)
              for name, value in {**config_options, **job_options}.items() if value is not None}  # fmt: skip
    settings = {"data": data, "method": context.base, "backbones": list(backbones), "seeds": seeds, **chosen}
    ablation = Ablation(series, context, settings, tuple(rows))
    _write_results(ablation, folder)
    return ablation


def _deduplicate_jobs(rows: Sequence[PointResult]) -> list[PointResult]:
    """The rows, with one job where several differ in nothing but the name of their file."""
    first: dict[str, Job] = {}

    def same(job: Job) -> Job:
        return first.setdefault(str(replace(job, out=Path())), job)

    return [replace(row, jobs=tuple(map(same, row.jobs))) for row in rows]


def _with_results(row: PointResult, results: Mapping[Path, RunResult | str]) -> PointResult:
    """The row with what came of its jobs."""
    mine = [results[job.out] for job in row.jobs if row.point.ensemble_of is None]
    errors = [result for result in mine if isinstance(result, str)]
    runs = tuple(result for result in mine if not isinstance(result, str))
    return replace(row, runs=runs, error=errors[-1]) if errors else replace(row, runs=runs)


def _evaluate_ensemble(row: PointResult, rows: Sequence[PointResult]) -> PointResult:
    """The runs of another point, as one model on the images that each was scored on."""
    of = next(other for other in rows if (other.point.x, other.point.curve) == (row.point.ensemble_of, row.point.curve))
    if of.error or len(of.runs) < 2:
        return replace(row, error=of.error or f"refused: {len(of.runs)} runs make no ensemble; more seeds do")
    job = of.jobs[0]
    data = load_dataset(job.data, **{**job.split_options, "seed": job.split_seed or 0})
    backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
    models = [load(other.out, backbone) for other in of.jobs]
    scores = evaluate_ensemble(models, data, of.runs[0].eval_split, skip_corrupt=job.to_dict()["skip_corrupt"])
    return replace(row, runs=of.runs, ensemble_top1=scores.top1)


def _make_context(data: str, base: Method, backbones: tuple[str, ...], job_options: Mapping[str, Any]) -> SeriesContext:
    structure = meta_backbone(backbones[0], job_options.get("image_size"))
    layout = read_layout(structure.module, structure.preprocessing)
    split_options = {name: job_options[name] for name in ("val_fraction", "test_fraction") if name in job_options}
    return SeriesContext(
        base=str(base),
        classes=len(load_dataset(data, **split_options).classes),
        backbones=backbones,
        blocks=len(layout.blocks),
        size=structure.preprocessing.size,
        patch=layout.patch_size,
    )


def _plan_row(
    point: Point,
    base: Method,
    context: SeriesContext,
    data: str,
    folder: Path,
    seeds: int,
    config_options: Mapping[str, Any],
    job_options: Mapping[str, Any],
) -> PointResult:
    """The jobs of a point, or why there are none."""
    try:
        method = point.method_for(base)
        fields = {"backbone": context.backbones[0], **job_options, **point.job}
        reset_options = (
            {} if _first_method_name(method) == _first_method_name(base) else dict.fromkeys(_METHOD_SPECIFIC)
        )  # None: not chosen
        slug = "".join(c if c.isalnum() else "_" for c in f"{point.curve} {point.x}".strip())
        jobs = tuple(
            Job.create(
                data,
                folder / f"{slug}-{seed}.safetensors",
                ClassificationConfig.for_method(method, **{**config_options, **reset_options}, seed=seed),
                method=str(method),
                **fields,
            )
            for seed in range(seeds)
        )
        _check_supported(jobs[0], method, context.classes)
    except (SpecError, UnsupportedError, BackboneError) as error:
        return PointResult(point, error=f"refused: {_one_line(error)}")
    return PointResult(point, str(method), jobs)


def _check_supported(job: Job, method: Method, classes: int) -> None:
    """Hang the method on the bare structure of the backbone; raises what the job would, without loading weights."""
    model = TunedModel(meta_backbone(job.backbone, job.image_size), method, classes)
    model.initialize(InitInputs(torch.empty(classes, model.layout.width, device="meta")))


def _first_method_name(method: Method) -> str:
    return method.terms[0].name if isinstance(method, Sum) else method.name


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _table_cells(row: PointResult) -> list[str]:
    if not row.runs:
        return [str(row.point.x), row.method, "", "", "", row.top1_text]
    run = row.runs[0]
    seconds = statistics.mean(run.seconds for run in row.runs)
    share = f"{100 * run.trainable_fraction:.2f} %"
    return [str(row.point.x), row.method, f"{run.trainable_parameters:,}", share, f"{seconds:.0f}", row.top1_text]


def _write_results(ablation: Ablation, folder: Path) -> None:
    series, lines = ablation.series, dict[str, dict[str | float, list[float]]]()
    for row in ablation.rows:
        if row.runs:
            lines.setdefault(row.point.curve, {})[row.point.x] = row.top1
    settings = ablation.settings
    title = f"{series.title}: {Path(settings['data']).name}, {', '.join(settings['backbones'])}\n{settings['method']}"
    figures.sweep(folder / f"{series.name}.png", lines, series.x, title, log_scale=series.log_scale)
    write_atomic(folder / "results.json", json.dumps(ablation.to_dict(), indent=1).encode())
    text = f"# {series.title} ({series.source})\n\n{ablation.to_markdown()}\n"
    values = {**settings, "backbones": ", ".join(settings["backbones"])}
    text += "".join(f"- {name}: {value}\n" for name, value in values.items())
    for environment in ablation.environments:
        text += "- " + "; ".join(f"{name} {value}" for name, value in _flatten(environment).items()) + "\n"
    text += "\nWhat is not listed has its default; results.json has every recipe and every run.\n"
    write_atomic(folder / "table.md", text.encode())


def _flatten(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Versions beside the hardware; lists as text, and nothing empty."""
    values = {**{name: value for name, value in environment.items() if name != "versions"}, **environment["versions"]}
    return {name: ", ".join(value) if isinstance(value, list) else value for name, value in values.items() if value}
