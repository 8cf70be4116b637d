"""Progress of an experiment: a line for each run that has ended, and on a terminal a bar below them."""

from __future__ import annotations

from vpt.api.progress import ConsoleCallback
from vpt.core.units import format_duration
from vpt.experiments.experiment import METRICS, Run
from vpt.experiments.store import Record


class BenchProgress(ConsoleCallback):
    """Shows runs that have ended, the number of runs, and the remaining time."""

    def on_progress(self, done: int, total: int, eta_seconds: float | None) -> None:
        """Show the number of runs and the remaining time.

        Args:
            done: Number of runs that have ended.
            total: Number of all runs.
            eta_seconds: Estimated time to the end, or None before the first run has ended.
        """
        rest = "" if eta_seconds is None or done == total else f"{format_duration(eta_seconds)} left"
        if self.console.is_terminal:
            self._update_bar("runs", done, total, rest)
        elif done != self._completed_steps:
            self.console.print(f"{done}/{total} runs  {rest}".rstrip(), markup=False)
        self._completed_steps = done

    def on_run_end(self, run: Run, record: Record) -> None:
        """Show a run with its score or its error.

        Args:
            run: The run.
            record: Its record.
        """
        score: str = record.status
        if record.metric is not None:
            score = f"{METRICS[record.metric]} {100 * record.scores[record.metric]:.1f} % on {record.scores['split']}"
        text = f"{run.label}  {score}  {format_duration(record.cost['wall_seconds'])}"
        self.console.print(f"{text}  {record.error}".rstrip(), markup=False, soft_wrap=True)
