"""Verdicts on the runs and the cells of an experiment, decided from its records alone."""

import os
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vpt.core.text import comma_list, pluralize
from vpt.errors import SpecError
from vpt.experiments.design import Setting, Task
from vpt.experiments.grid_extension import axes, changed
from vpt.experiments.results import Cell, ExperimentResults
from vpt.experiments.run_identity import training_options
from vpt.experiments.store import Record
from vpt.training.verdicts import KINDS, EdgeOfGrid, Kind, Verdict, edges_of_grid, joins_ridge, judge_run, judge_splits

OF_CELLS: frozenset[Kind] = frozenset(("edge of the grid", "val and test apart"))  # which no single run has alone
_MAX_NAMED = 3  # cells of a kind that a summary names


@dataclass(frozen=True)
class CellVerdict(Verdict):
    """A verdict on a method on a task.

    Attributes:
        task: Name of the task.
        method: Name of the row.
    """

    task: str = ""
    method: str = ""

    @property
    def cell(self) -> str:
        """Name of the cell."""
        return f"{self.method} on {self.task}"

    def __str__(self) -> str:
        """Return the verdict as one phrase that begins with the name of the cell."""
        return f"{self.cell}  {super().__str__()}"


def judge_record(record: Record, task: Task) -> list[Verdict]:
    """Return the verdicts on a run.

    Args:
        record: Its record.
        task: Its task, whose numbers of images stand in for those that records of earlier versions lack.

    Returns:
        The verdicts; none on a run that ended in an error, which is no result.
    """
    if record.status == "error":
        return []
    metric = record.config["training"].get("metric", "auto")
    return judge_run(
        record.scores,
        record.history,
        record.images or task.images,
        error=record.error if record.status == "failed" else "",
        metric=str(record.metric) if metric == "auto" else metric,
        lower_is_better=metric == "mae",
        keep=record.config["training"].get("keep", "last"),
        joined=joins_ridge(record.config.get("ridge"), record.notes),
    )


def judge_cells(results: ExperimentResults) -> list[CellVerdict]:
    """Return the verdicts on all cells.

    Args:
        results: Results of the experiment.

    Returns:
        The verdicts in the order of `KINDS`, and then of the plan.
    """
    found = [
        CellVerdict(verdict.kind, verdict.evidence, verdict.remedy, cell.task.name, cell.method)
        for cell in results.cells.values()
        for verdict in judge_cell(cell, results.experiment.row(cell.method).settings_for(cell.task))
    ]
    return sorted(found, key=lambda verdict: KINDS.index(verdict.kind))


def judge_cell(cell: Cell, settings: Sequence[Setting]) -> list[Verdict]:
    """Return the verdicts on a cell: those on its final runs, on its grid, and on its scores on val and test.

    Args:
        cell: The cell. Before its final runs, its search runs are judged if all of them diverged.
        settings: Settings to choose from.

    Returns:
        The verdicts, each kind once.
    """
    records = cell.final_records
    if cell.setting is None and all(record.status == "failed" for record in cell.search_records):
        records = cell.search_records
    by_kind: dict[Kind, list[Verdict]] = {}
    for record in records:
        for verdict in judge_record(record, cell.task):
            by_kind.setdefault(verdict.kind, []).append(verdict)
    verdicts = [
        Verdict(kind, f"{len(found)} of {pluralize(len(records), 'run')}: {found[0].evidence}", found[0].remedy)
        for kind, found in by_kind.items()
    ]
    if "val and test apart" not in by_kind and cell.val_score is not None and cell.mean is not None:
        verdicts += _judge_selection(cell, cell.val_score, cell.mean)
    return [*verdicts, *_judge_grid(cell, settings)]


def summarize(verdicts: Iterable[CellVerdict]) -> list[tuple[Kind, str]]:
    """Return each kind of verdict with the names of its cells, and the evidence of the first of them.

    Args:
        verdicts: Verdicts on cells.

    Returns:
        Kinds and texts.
    """
    by_kind: dict[Kind, list[CellVerdict]] = {}
    for verdict in verdicts:
        by_kind.setdefault(verdict.kind, []).append(verdict)
    return [
        (kind, f"{comma_list([one.cell for one in found], _MAX_NAMED)} ({found[0].evidence})")
        for kind, found in by_kind.items()
    ]


def _judge_selection(cell: Cell, val_score: float, mean: float) -> list[Verdict]:
    """Return the verdict on the score of the selected setting on val, and the mean of the final runs on test."""
    final = cell.final_records[0]
    if final.metric != "top1" or final.scores["split"] != "test":
        return []
    of_search = next((record.images for record in cell.search_records if record.images), cell.task.images)
    of_final = final.images or cell.task.images
    return judge_splits(val_score, of_search.get("val"), mean, of_final.get("test"))


def _judge_grid(cell: Cell, settings: Sequence[Setting]) -> list[Verdict]:
    """Return the verdict on the axes of a grid whose best value is at an end that can be extended."""
    wanted = [(setting.spec, training_options(setting.config)) for setting in settings]
    tried = [(record.config["method"], record.config["training"]) for record in cell.search_records]
    if cell.setting is None or not tried:
        return []
    scores = [cell.search_records[tried.index(key)].score if key in tried else None for key in wanted]
    edges = [edge for edge in edges_of_grid([axes(one) for one in settings], scores) if _is_possible(cell, edge)]
    if not edges:
        return []
    texts = (f"best {edge.key} is {edge.value:g}, the {'largest' if edge.value == max(edge.values) else 'smallest'} of "
             f"{', '.join(f'{value:g}' for value in edge.values)}" for edge in edges)  # fmt: skip
    changes = [f"{edge.key}={edge.beyond:g}" for edge in edges]
    command = shlex.join(["vpt", "bench", "extend", _shown(cell.folder), cell.method, *changes])
    return [Verdict("edge of the grid", "; ".join(texts), command)]


def _is_possible(cell: Cell, edge: EdgeOfGrid) -> bool:
    """Return whether the value beyond the edge is another one, and one that the method accepts."""
    assert cell.setting is not None
    with suppress(SpecError):
        return changed(cell.setting, edge.key, edge.beyond) != cell.setting
    return False


def _shown(folder: Path) -> str:
    """Return a folder as a person at the working directory writes it; reports do not publish where the folder lies."""
    try:
        return os.path.relpath(folder)
    except ValueError:  # on another drive
        return folder.name
