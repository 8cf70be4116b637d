"""The progress of an experiment, computed from the records alone."""

import textwrap
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from vpt.experiments.reports.cell_verdicts import CellVerdict, judge_cells, judge_record
from vpt.experiments.results import load_results
from vpt.experiments.selection import count_runs, resolved_runs
from vpt.experiments.store import Store
from vpt.protocols import Departure, describe_protocol


@dataclass(frozen=True)
class Status:
    """The progress of an experiment.

    Attributes:
        name: Name of the experiment.
        total: Number of runs.
        done: Number of runs that are done.
        failed: Number of runs that diverged and have no result.
        diverged: Number of runs that diverged, with a result or without.
        errors: Number of runs that ended in an error.
        running: Number of runs that a process does; a batch of runs that are trained at once counts as one.
        rows: Task, method, runs with a record, and all runs of each cell.
        error_messages: A line for each run that is not done and has a record.
        verdicts: Verdicts on the cells, the heaviest first.
        protocol_name: Protocol of the plan; None for a plan of its own.
        departures: What the plan sets otherwise.
    """

    name: str
    total: int
    done: int
    failed: int
    diverged: int
    errors: int
    running: int
    rows: tuple[tuple[str, str, int, int], ...]
    error_messages: tuple[str, ...]
    verdicts: tuple[CellVerdict, ...]
    protocol_name: str | None
    departures: tuple[Departure, ...]

    def text(self, width: int = 80) -> str:
        """Return the progress as text.

        Args:
            width: Largest number of characters of a line, but for one that is a command. Default: 80.

        Returns:
            Lines, each with its line break.
        """
        task_width, method_width = max(len(row[0]) for row in self.rows), max(len(row[1]) for row in self.rows)
        first = (
            f"{self.name}: {self.done} of {self.total} runs done, {self.diverged} diverged, {self.errors} in error, "
            f"{self.running} running"
        )
        lines = [
            *describe_protocol(self.protocol_name, self.departures),
            *(
                f"  {task:<{task_width}}  {method:<{method_width}}  {done}/{total}"
                for task, method, done, total in self.rows
            ),
            *self.error_messages,
        ]
        verdicts = (part for verdict in self.verdicts for part in _describe(verdict, width))
        rest = (part for line in lines for part in _wrap(line, width))
        return "".join(f"{line}\n" for line in (*_wrap(first, width), *verdicts, *rest))


def _describe(verdict: CellVerdict, width: int) -> list[str]:
    """Return a verdict in parts; a command is a line of its own, whatever its length, so that it can be copied."""
    if not verdict.remedy.startswith("vpt "):
        return _wrap(str(verdict), width)
    return [*_wrap(str(replace(verdict, remedy="")), width), f"    {verdict.remedy}"]


def _wrap(line: str, width: int) -> list[str]:
    """Return a line in parts; those after the first are indented."""
    if len(line) <= width:
        return [line]
    return textwrap.wrap(line, width, subsequent_indent="    ", break_on_hyphens=False)


def read_status(folder: Path) -> Status:
    """Return the progress of the experiment in a folder.

    Args:
        folder: Folder of the experiment.

    Returns:
        The progress of the experiment in a folder.

    Raises:
        DataError: The folder holds no experiment.
    """
    store = Store(folder)
    results, records = load_results(store), store.records()
    experiment, runs = results.experiment, resolved_runs(results.experiment, records)
    states = Counter(record.status for record in results.records)
    rows = []
    for (task, method), cell in results.cells.items():
        row = experiment.row(method)
        expected = len(experiment.search_runs(cell.task, row)) + experiment.num_final_runs(row)
        rows.append((task, method, len(cell.records), expected))
    verdicts = (judge_record(record, runs[record.id].task) for record in results.records)
    return Status(
        name=experiment.name,
        total=count_runs(experiment, records)[1],
        done=states["done"],
        failed=states["failed"],
        diverged=sum(any(verdict.kind == "diverged" for verdict in found) for found in verdicts),
        errors=states["error"],
        running=len(store.locks.live()),
        rows=tuple(rows),
        error_messages=tuple(f"{runs[r.id].label}  {r.status}: {r.error}" for r in results.records if r.error),
        verdicts=tuple(judge_cells(results)),
        protocol_name=experiment.protocol_name,
        departures=experiment.departures,
    )
