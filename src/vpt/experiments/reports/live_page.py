"""The live page of a running experiment."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vpt.core.text import format_duration
from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.reports.cell_verdicts import judge_cells, summarize
from vpt.experiments.reports.tables import format_cell
from vpt.experiments.results import Cell, load_results
from vpt.experiments.selection import count_runs, resolved_runs
from vpt.experiments.store import Record, Store
from vpt.plots.inline_svg import sparkline
from vpt.plots.pages import page_environment
from vpt.training.callbacks import EpochMetrics
from vpt.training.live_page import REFRESH_SECONDS, LivePage

_LAST_LINES = 3  # of the message of a failure


class ExperimentPage(LivePage):
    """Page of an experiment: cells, the curves of the runs at hand, time left, failures.

    The curves are those in the folder, so that other processes may do the runs.

    Attributes:
        store: Folder of the experiment.
    """

    def __init__(
        self, store: Store, path: Path, on_failure: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Write no page yet: the first event does.

        Args:
            store: Folder of the experiment.
            path: The HTML file.
            on_failure: Function that receives one message if the page cannot be written.
            clock: Function that returns the time in seconds. Default: the time of this machine.
        """
        super().__init__(path, on_failure, clock)
        self.store: Store = store
        self._eta: float | None = None

    def on_epoch(self, record: EpochMetrics) -> None:  # noqa: D102
        self._update()

    def on_run_end(self, run: Run, record: Record) -> None:  # noqa: D102
        self._update()

    def on_progress(self, done: int, total: int, eta_seconds: float | None) -> None:  # noqa: D102
        self._eta = eta_seconds
        self._update()

    def close(self) -> None:  # noqa: D102
        self._eta = None
        super().close()

    def render(self, refresh: bool) -> str:  # noqa: D102
        results = load_results(self.store)
        done, total = count_runs(results.experiment, self.store.records())
        cells = [
            (task.name, [_describe(results.cells[task.name, method]) for method in results.methods])
            for task in results.experiment.tasks
        ]
        failures = [(record.task, record.method, "\n".join(record.error.strip().splitlines()[-_LAST_LINES:]))
                    for record in results.records if record.error]  # fmt: skip
        values: Mapping[str, Any] = {
            "title": results.experiment.name,
            "refresh": round(REFRESH_SECONDS) if refresh else None,
            "done": done,
            "total": total,
            "left": None if self._eta is None or done == total else format_duration(self._eta),
            "verdicts": summarize(judge_cells(results)),
            "methods": results.methods,
            "cells": cells,
            "running": self._running(results.experiment) if refresh else [],
            "failures": failures,
        }
        environment = page_environment("vpt.experiments")
        return environment.get_template("live.html").render(values)

    def _running(self, experiment: Experiment) -> list[tuple[str, int, list[float], Markup]]:
        """Return the name, the number of epochs, the losses and their curve of each run that a process does."""
        runs, shown = resolved_runs(experiment, self.store.records()), []
        for run_id in sorted(self.store.locks.live()):
            if run_id in runs:
                losses = _read_losses(self.store.work_path(run_id).with_suffix(".run") / "metrics.jsonl")
                curve = Markup(sparkline("training loss", [losses], 0.0, max(losses))) if losses else Markup()
                shown.append((runs[run_id].label, runs[run_id].setting.config.num_epochs, losses, curve))
        return shown


def _read_losses(path: Path) -> list[float]:
    """Return the training loss of each epoch; none for a run that has not ended its first epoch."""
    with suppress(FileNotFoundError):
        return [json.loads(line)["train_loss"] for line in path.read_text(encoding="utf-8").splitlines()]
    return []


def _describe(cell: Cell) -> str:
    """Return the text of a cell: its score so far, and its runs."""
    total = cell.expected_runs
    runs = f"{len(cell.final_records)}/{total} runs" if total else "refused"
    searched = f", {len(cell.search_records)} of the search" if cell.search_records else ""
    return f"{format_cell(cell)} · {runs}{searched}" if cell.scores else f"{runs}{searched}"
