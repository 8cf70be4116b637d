"""The report of a series of ablations: results.json, table.md and NAME.png."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpt.core.io import write_atomic
from vpt.experiments.ablation_series import Point, Series
from vpt.experiments.experiment import Experiment
from vpt.experiments.results import Cell
from vpt.experiments.store import Record, Store
from vpt.experiments.table import Table, format_mean_std, markdown_rows, one_line
from vpt.methods.registry import parse_method
from vpt.plots import figures


@dataclass(frozen=True)
class PointResult:
    """A point of a series with its runs.

    Attributes:
        point: The point.
        cell: Its cell in the experiment; None for a point that cannot be combined with the base.
        error: Reason why there is no cell; empty where there is one.
        store: Folder of the runs.
    """

    point: Point
    cell: Cell | None = None
    error: str = ""
    store: Store | None = None

    @property
    def runs(self) -> list[Record]:
        """The records of its final runs that are done."""
        return [record for record in self.cell.final_records if record.status == "done"] if self.cell else []

    @property
    def top1(self) -> list[float]:
        """Top-1 of each run, between 0 and 1; of all together for an ensemble."""
        return [record.score for record in self.runs if record.score is not None]

    @property
    def mean(self) -> float | None:
        """Mean top-1; None without a run."""
        return statistics.fmean(self.top1) if self.top1 else None

    @property
    def std(self) -> float | None:
        """Standard deviation of top-1 over seeds; None for fewer than two runs."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else None

    @property
    def method(self) -> str:
        """Text of the method; empty for a refused point."""
        return str(parse_method(self.cell.setting.spec)) if self.cell and self.cell.setting else ""

    @property
    def status(self) -> str:
        """Why runs are missing: "refused", "diverged", "error" or "missing"; "done" where none is."""
        if self.cell is None or self.cell.refusal:
            return "refused"
        statuses = {record.status for record in self.cell.final_records}
        if statuses <= {"done"}:
            return "done" if self.cell.complete else "missing"
        return "error" if "error" in statuses else "diverged"

    @property
    def reason(self) -> str:
        """The reason why runs are missing, with its status; empty where none is."""
        if self.status == "done":
            return ""
        failed = [record.error for record in self.cell.final_records if record.error] if self.cell else []
        text = self.error or (self.cell.refusal if self.cell else "") or (failed[-1] if failed else "no result")
        return f"{self.status}: {one_line(text)}"

    @property
    def top1_text(self) -> str:
        """Mean top-1 ± standard deviation in percent, and the reason why runs are missing."""
        parts = [format_mean_std(self.mean, self.std, digits=1)] if self.top1 else []
        if self.reason:
            parts += [f"(n = {len(self.runs)})"] * bool(self.runs) + [self.reason]
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the point as JSON values."""
        first = self.runs[0] if self.runs else None
        config = first.config if first else {}
        parameters = first.parameters if first else {}
        ids = [run_id for record in self.runs for run_id in record.config.get("members", [record.id])]
        return {
            "x": self.point.x,
            "curve": self.point.curve,
            "method": self.method,
            "status": self.status,
            "error": self.reason,
            "mean": self.mean,
            "std": self.std,
            "n": len(self.top1),
            "top1": self.top1,
            "seeds": [record.config["training"]["seed"] for record in self.runs],
            "job": {**self.point.job},
            "config": config.get("training"),
            "backbone": config.get("backbone"),
            "eval_split": first.scores["split"] if first else None,
            "images": first.images if first else None,
            "trainable_parameters": parameters.get("trainable"),
            "total_parameters": parameters.get("total"),
            "file_bytes": first.cost["file_bytes"] if first else None,
            "seconds": [record.cost["seconds"] for record in self.runs],
            "files": [str(self.store.tuned_path(run_id)) for run_id in ids] if self.store else [],
        }

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        if not self.runs:
            return (str(self.point.x), self.method, "", "", "", self.top1_text)
        parameters = self.runs[0].parameters
        seconds = statistics.fmean(record.cost["seconds"] for record in self.runs)
        share = f"{100 * parameters['trainable'] / parameters['total']:.2f} %"
        return (str(self.point.x), self.method, f"{parameters['trainable']:,}", share, f"{seconds:.0f}", self.top1_text)


@dataclass(frozen=True)
class Ablation:
    """A series with its results.

    Attributes:
        series: The series.
        settings: All that was chosen for it.
        rows: Its points.
        experiment: The experiment of its runs.
    """

    series: Series
    settings: dict[str, Any]
    rows: tuple[PointResult, ...]
    experiment: Experiment

    @property
    def notes(self) -> list[str]:
        """What the user should know, each once."""
        return list(dict.fromkeys(note for row in self.rows for record in row.runs for note in record.notes))

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Hardware and versions of the runs: several where a series was resumed on another machine."""
        found: list[dict[str, Any]] = []
        for record in (record for row in self.rows for record in row.runs):
            environment = {name: value for name, value in record.provenance.items() if name != "ended"}
            if environment not in found:
                found.append(environment)
        return found

    @property
    def table(self) -> Table:
        """The table, a row for each point."""
        seeds = self.settings["seeds"]
        top1 = "top-1, %" + f", mean ± sd of {seeds}" * (seeds > 1)
        rows = tuple(row.cells() for row in self.rows)
        best = max(range(len(rows)), key=lambda index: self.rows[index].mean or 0.0)
        title = f"{self.series.title} ({self.series.source})"
        header = (self.series.x, "method", "trained", "share", "training, s", top1)
        return Table(self.series.name, title, header, rows, num_text_columns=2, best_row=best)

    def to_dict(self) -> dict[str, Any]:
        """Return the series as JSON values."""
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


def write_ablation(ablation: Ablation, folder: Path) -> None:
    """Write results.json, table.md and, where matplotlib is installed, NAME.png.

    Args:
        ablation: The series with its results.
        folder: Folder of the series.
    """
    series, settings = ablation.series, ablation.settings
    lines: dict[str, dict[str | float, list[float]]] = {}
    for row in ablation.rows:
        if row.top1:
            lines.setdefault(row.point.curve, {})[row.point.x] = row.top1
    title = f"{series.title}: {Path(settings['data']).name}, {', '.join(settings['backbones'])}\n{settings['method']}"
    figures.sweep(folder / f"{series.name}.png", lines, series.x, title, log_scale=series.log_scale)
    write_atomic(folder / "results.json", json.dumps(ablation.to_dict(), indent=1).encode())
    text = f"# {ablation.table.title}\n\n{markdown_rows(ablation.table)}\n"
    values = {**settings, "backbones": ", ".join(settings["backbones"])}
    text += "".join(f"- {name}: {value}\n" for name, value in values.items())
    for environment in ablation.environments:
        text += "- " + "; ".join(f"{name} {value}" for name, value in _flatten(environment).items()) + "\n"
    text += "\nWhat is not listed has its default; results.json has the configuration of every point.\n"
    write_atomic(folder / "table.md", text.encode())


def _flatten(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return versions beside the hardware; lists as text, and nothing empty."""
    values = {**{name: value for name, value in environment.items() if name != "versions"}, **environment["versions"]}
    return {name: ", ".join(value) if isinstance(value, list) else value for name, value in values.items() if value}
