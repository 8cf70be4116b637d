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

from vpt.backbones import DEFAULT, load_backbone, skeleton
from vpt.backbones.layout import sites_of
from vpt.core.io import write_atomic
from vpt.data.loading import read
from vpt.errors import BackboneError, FitError, SpecError, TrainingError
from vpt.experiments.ablation_series import Known, Point, Series
from vpt.methods.base import Method, Sum
from vpt.methods.registry import parse_method
from vpt.model.tuned_file import load
from vpt.model.tuned_model import TunedModel
from vpt.plots import figures
from vpt.tasks.classification.prediction import evaluate_together
from vpt.training import Recipe
from vpt.training.job import Job, Result, SeriesListener
from vpt.tuning import tune

SEEDS = 3
_OF_A_METHOD = ("optimizer", "learning_rate", "weight_decay")  # what is good for one kind may ruin another


@dataclass(frozen=True)
class Row:
    """A point and what came of it.

    method: its text; empty where it cannot be. jobs: one per seed. runs: of those that were finished.
    trouble: why runs are missing: "refused: ..." where the point cannot be, "diverged: ..." where its loss did.
    together: top-1 of all runs as one model, where the point asks for that.
    """

    point: Point
    method: str = ""
    jobs: tuple[Job, ...] = ()
    runs: tuple[Result, ...] = ()
    trouble: str = ""
    together: float | None = None

    @property
    def top1(self) -> list[float]:
        """Top-1 of each run, between 0 and 1; of all together, where they answer as one."""
        return [run.top1 for run in self.runs] if self.together is None else [self.together]

    @property
    def mean(self) -> float | None:
        """Mean top-1; None where there is no run."""
        return statistics.mean(self.top1) if self.runs else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of top-1 over seeds; None for fewer than two."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else None

    @property
    def figure(self) -> str:
        """Top-1 in percent for a table, and any trouble."""
        parts = [f"{100 * self.mean:.1f}"] if self.mean is not None else []
        if self.spread is not None:
            parts.append(f"± {100 * self.spread:.1f}")
        if self.trouble:
            parts += [f"(n = {len(self.runs)})"] * bool(self.runs) + [self.trouble]
        return " ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "x": self.point.x,
            "line": self.point.line,
            "method": self.method,
            "status": "done" if not self.trouble else self.trouble.partition(":")[0],
            "trouble": self.trouble,
            "mean": self.mean,
            "spread": self.spread,
            "n": len(self.top1),
            "top1": self.top1,
            "seeds": [job.recipe.seed for job in self.jobs],
            "job": {**self.point.job},
            "recipe": self.jobs[0].recipe.as_dict() if self.jobs else None,
            **{
                name: getattr(self.runs[0], name) if self.runs else None
                for name in ("backbone", "scored_on", "images", "trained_parameters", "total_parameters", "file_bytes")
            },
            "seconds": [run.seconds for run in self.runs],
            "files": [run.file for run in self.runs],
        }


@dataclass(frozen=True)
class Ablation:
    """A series that was run. settings: all that was chosen for it."""

    series: Series
    known: Known
    settings: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def notes(self) -> list[str]:
        """What the user should know, each once."""
        return list(dict.fromkeys(note for row in self.rows for run in row.runs for note in run.notes))

    @property
    def machines(self) -> list[dict[str, Any]]:
        """Hardware and versions of the runs: more than one where a series was begun here and ended there."""
        found: list[dict[str, Any]] = []
        for run in (run for row in self.rows for run in row.runs):
            if run.machine not in found:
                found.append(run.machine)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "series": self.series.name,
            "title": self.series.title,
            "source": self.series.source,
            "x": self.series.x,
            "settings": self.settings,
            "points": [row.as_dict() for row in self.rows],
            "notes": self.notes,
            "machines": self.machines,
        }

    def cells(self) -> list[list[str]]:
        """The table as text: a row of names, then a row for each point."""
        seeds = self.settings["seeds"]
        names = [self.series.x, "method", "trained", "share", "training, s", "top-1, %"]
        names[-1] += f", mean ± sd of {seeds}" * (seeds > 1)
        return [names, *(_cells(row) for row in self.rows)]

    def markdown(self) -> str:
        """The same table for a text file."""
        first, *rest = ([cell.replace("|", "\\|") for cell in row] for row in self.cells())
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
    choices: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    listener: SeriesListener | None = None,
    overwrite: bool = False,
) -> Ablation:
    """Run `series` on `data` with seeds 0, 1, ...; what is done in `folder` already is only read.

    method: the base; a series keeps its fields but those it varies. choices: of the recipe; optimizer, learning_rate
    and weight_decay are for the base and its variants, and other methods train with their own. options: of the job.

    A point that cannot be is found before any training, and stands in the table with the reason; one that diverges
    stands there too. Raises SpecError where no point can be, and for a folder whose runs have other settings.
    """
    listener = listener or SeriesListener()
    base, options = parse_method(method), dict(options or {})
    choices = {name: value for name, value in (choices or {}).items() if value is not None}
    known = _known(data, base, tuple(backbones), options)
    points = list(series.points(known))
    if any("backbone" in point.job for point in points) != (len(backbones) > 1):
        raise SpecError(
            f"the series {series.name} was given {len(backbones)} backbones; the series `backbone` compares two or "
            "more, give --backbone for each; any other takes one"
        )
    if len(backbones) > 1 and options.get("weights"):
        raise SpecError("--weights belong to one backbone, and several are compared; leave them to be fetched")

    rows = [_planned(point, base, known, data, folder, seeds, choices, options) for point in points]
    if all(row.trouble for row in rows):
        raise SpecError(f"no point of the series {series.name} can be run; the first is {rows[0].trouble}")
    rows = _each_job_once(rows)
    outcomes: dict[Path, Result | str] = {}  # of each job, or how it diverged
    total = len({job.out for row in rows if row.point.together is None for job in row.jobs})
    for row in rows:
        for job in row.jobs if row.point.together is None else ():
            if job.out in outcomes:  # at the end of two lines, such as all blocks from the bottom and from the top
                continue
            listener.run(len(outcomes) + 1, total, f"{series.name} {row.point.x}  {row.method}", job.recipe.seed)
            try:
                outcomes[job.out] = tune(job, listener, overwrite=overwrite)
            except TrainingError as error:
                outcomes[job.out] = f"diverged: {_one_line(error)}"
    rows = [_with_outcomes(row, outcomes) for row in rows]
    rows = [row if row.point.together is None or row.trouble else _together(row, rows) for row in rows]

    chosen = {name: value if isinstance(value, int | float) else str(value)
              for name, value in {**choices, **options}.items() if value is not None}  # fmt: skip
    settings = {"data": data, "method": known.base, "backbones": list(backbones), "seeds": seeds, **chosen}
    ablation = Ablation(series, known, settings, tuple(rows))
    _write(ablation, folder)
    return ablation


def _each_job_once(rows: Sequence[Row]) -> list[Row]:
    """The rows, with one job where several differ in nothing but the name of their file."""
    first: dict[str, Job] = {}

    def same(job: Job) -> Job:
        return first.setdefault(str(replace(job, out=Path())), job)

    return [replace(row, jobs=tuple(map(same, row.jobs))) for row in rows]


def _with_outcomes(row: Row, outcomes: Mapping[Path, Result | str]) -> Row:
    """The row with what came of its jobs."""
    mine = [outcomes[job.out] for job in row.jobs if row.point.together is None]
    trouble = [outcome for outcome in mine if isinstance(outcome, str)]
    runs = tuple(outcome for outcome in mine if not isinstance(outcome, str))
    return replace(row, runs=runs, trouble=trouble[-1]) if trouble else replace(row, runs=runs)


def _together(row: Row, rows: Sequence[Row]) -> Row:
    """The runs of another point, as one model on the images that each was scored on."""
    of = next(other for other in rows if (other.point.x, other.point.line) == (row.point.together, row.point.line))
    if of.trouble or len(of.runs) < 2:
        return replace(row, trouble=of.trouble or f"refused: {len(of.runs)} runs make no ensemble; more seeds do")
    job = of.jobs[0]
    data = read(job.data, seed=job.split_seed or 0, val_fraction=job.val_fraction, test_fraction=job.test_fraction)
    backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
    models = [load(other.out, backbone) for other in of.jobs]
    scores = evaluate_together(models, data, of.runs[0].scored_on, skip_corrupt=job.skip_corrupt)
    return replace(row, runs=of.runs, together=scores.top1)


def _known(data: str, base: Method, backbones: tuple[str, ...], options: Mapping[str, Any]) -> Known:
    bare = skeleton(backbones[0], options.get("image_size"))
    sites = sites_of(bare.module, bare.preprocessing)
    cuts = {name: options[name] for name in ("val_fraction", "test_fraction") if name in options}
    return Known(
        base=str(base),
        classes=len(read(data, **cuts).classes),
        backbones=backbones,
        blocks=len(sites.blocks),
        size=bare.preprocessing.size,
        patch=sites.patch,
    )


def _planned(
    point: Point,
    base: Method,
    known: Known,
    data: str,
    folder: Path,
    seeds: int,
    choices: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Row:
    """The jobs of a point, or why there are none."""
    try:
        method = point.of(base)
        fields = {"backbone": known.backbones[0], **options, **point.job}
        own = {} if _kind(method) == _kind(base) else dict.fromkeys(_OF_A_METHOD)  # None: not chosen
        plain = "".join(c if c.isalnum() else "_" for c in f"{point.line} {point.x}".strip())
        jobs = tuple(
            Job(
                data=data,
                out=folder / f"{plain}-{seed}.safetensors",
                recipe=Recipe.of(method, **{**choices, **own}, seed=seed),
                method=str(method),
                **fields,
            )
            for seed in range(seeds)
        )
        _try(jobs[0], method, known.classes)
    except (SpecError, FitError, BackboneError) as error:
        return Row(point, trouble=f"refused: {_one_line(error)}")
    return Row(point, str(method), jobs)


def _try(job: Job, method: Method, classes: int) -> None:
    """Hang the method on the bare structure of the backbone; raises what the job would, without loading weights."""
    model = TunedModel(skeleton(job.backbone, job.image_size), method, classes)
    model.begin_at(torch.empty(classes, model.sites.width, device="meta"))


def _kind(method: Method) -> str:
    return method.parts[0].name if isinstance(method, Sum) else method.name


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _cells(row: Row) -> list[str]:
    if not row.runs:
        return [str(row.point.x), row.method, "", "", "", row.figure]
    run = row.runs[0]
    seconds = statistics.mean(run.seconds for run in row.runs)
    share = f"{100 * run.share:.2f} %"
    return [str(row.point.x), row.method, f"{run.trained_parameters:,}", share, f"{seconds:.0f}", row.figure]


def _write(ablation: Ablation, folder: Path) -> None:
    series, lines = ablation.series, dict[str, dict[str | float, list[float]]]()
    for row in ablation.rows:
        if row.runs:
            lines.setdefault(row.point.line, {})[row.point.x] = row.top1
    settings = ablation.settings
    title = f"{series.title}: {Path(settings['data']).name}, {', '.join(settings['backbones'])}\n{settings['method']}"
    figures.series(folder / f"{series.name}.png", lines, series.x, title, log=series.log)
    write_atomic(folder / "results.json", json.dumps(ablation.as_dict(), indent=1).encode())
    text = f"# {series.title} ({series.source})\n\n{ablation.markdown()}\n"
    values = {**settings, "backbones": ", ".join(settings["backbones"])}
    text += "".join(f"- {name}: {value}\n" for name, value in values.items())
    for machine in ablation.machines:
        text += "- " + "; ".join(f"{name} {value}" for name, value in _flat(machine).items()) + "\n"
    text += "\nWhat is not listed has its default; results.json has every recipe and every run.\n"
    write_atomic(folder / "table.md", text.encode())


def _flat(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Versions beside the hardware; lists as text, and nothing empty."""
    values = {**{name: value for name, value in machine.items() if name != "versions"}, **machine["versions"]}
    return {name: ", ".join(value) if isinstance(value, list) else value for name, value in values.items() if value}
