"""The report of a series of ablations: results.json, table.md and NAME.png."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vpt.core.io import write_atomic
from vpt.core.text import one_line
from vpt.experiments.ablations.series import Point, Series
from vpt.experiments.reports.table import Table, format_mean_std, markdown_rows
from vpt.experiments.results import Cell
from vpt.experiments.significance import mean
from vpt.experiments.store import Record, Store
from vpt.methods.registry import parse_method
from vpt.plots import figures


@dataclass(frozen=True)
class PointResult:
    """A point of a series with its runs.

    Attributes:
        point: The point.
        cell: Its cell in the experiment.
        store: Folder of the runs.
    """

    point: Point
    cell: Cell
    store: Store

    @property
    def runs(self) -> list[Record]:
        """The records of its final runs that are done."""
        return [record for record in self.cell.final_records if record.status == "done"]

    @property
    def mean(self) -> float | None:
        """Mean top-1 of the runs that are done; None without a run."""
        return mean(self.cell.scores)

    @property
    def method(self) -> str:
        """Text of the method; empty for a refused point."""
        return str(parse_method(self.cell.setting.spec)) if self.cell.setting else ""

    @property
    def status(self) -> str:
        """Why runs are missing: "refused", "diverged", "error" or "missing"; "done" where none is."""
        if self.cell.refusal:
            return "refused"
        statuses = {record.status for record in self.cell.final_records}
        if statuses <= {"done"}:
            return "done" if self.cell.complete else "missing"
        return "error" if "error" in statuses else "diverged"

    @property
    def reason(self) -> str:
        """The reason why runs are missing, with its status; empty where none is."""
        errors = (*(record.error for record in reversed(self.cell.final_records)), self.cell.refusal, "no result")
        return "" if self.status == "done" else f"{self.status}: {one_line(next(filter(None, errors)))}"

    @property
    def top1_text(self) -> str:
        """Mean top-1 ± standard deviation in percent, and the reason why runs are missing."""
        count = len(self.cell.scores)
        scores = format_mean_std(self.mean, self.cell.std, digits=1) if count else ""
        return " ".join(filter(None, (scores, f"(n = {count})" if count and self.reason else "", self.reason)))

    def to_dict(self) -> dict[str, Any]:
        """Return the point as JSON values."""
        first = asdict(self.runs[0]) if self.runs else {}
        config, parameters = first.get("config", {}), first.get("parameters", {})
        ids = [run_id for record in self.runs for run_id in record.config.get("members", [record.id])]
        return {
            "x": self.point.x,
            "curve": self.point.curve,
            "method": self.method,
            "status": self.status,
            "error": self.reason,
            "mean": self.mean,
            "std": self.cell.std,
            "n": len(self.cell.scores),
            "top1": list(self.cell.scores),
            "seeds": [record.config["training"]["seed"] for record in self.runs],
            "job": {**self.point.job},
            "config": config.get("training"),
            "backbone": config.get("backbone"),
            "eval_split": first.get("scores", {}).get("split"),
            "images": first.get("images"),
            "trainable_parameters": parameters.get("trainable"),
            "total_parameters": parameters.get("total"),
            "file_bytes": first.get("cost", {}).get("file_bytes"),
            "seconds": [record.cost["seconds"] for record in self.runs],
            "files": [str(self.store.tuned_path(run_id)) for run_id in ids],
        }

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        costs = ("", "", "")
        if self.runs:
            parameters, seconds = self.runs[0].parameters, mean([record.cost["seconds"] for record in self.runs])
            share = f"{100 * parameters['trainable'] / parameters['total']:.2f} %"
            costs = (f"{parameters['trainable']:,}", share, f"{seconds:.0f}")
        return (str(self.point.x), self.method, *costs, self.top1_text)


@dataclass(frozen=True)
class Ablation:
    """A series with its results.

    Attributes:
        series: The series.
        settings: All that was chosen for it.
        rows: Its points.
    """

    series: Series
    settings: dict[str, Any]
    rows: tuple[PointResult, ...]

    @property
    def notes(self) -> list[str]:
        """Notes of the runs, each once."""
        return list(dict.fromkeys(note for row in self.rows for record in row.runs for note in record.notes))

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Hardware and versions of the runs: several where a series was resumed on another machine."""
        found: list[dict[str, Any]] = []
        for provenance in (record.provenance for row in self.rows for record in row.runs):
            environment = {name: value for name, value in provenance.items() if name != "ended"}
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
    """Write results.json, table.md and NAME.png.

    Args:
        ablation: The series with its results.
        folder: Folder of the series.
    """
    series, settings = ablation.series, ablation.settings
    lines: dict[str, dict[str | float, Sequence[float]]] = {}
    for row in ablation.rows:
        if row.cell.scores:
            lines.setdefault(row.point.curve, {})[row.point.x] = row.cell.scores
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
