"""Progress of a comparison: a line for each run that has ended, and on a terminal a bar below them."""

from __future__ import annotations

from vpt.cli.progress import ConsoleListener
from vpt.cli.units import format_duration
from vpt.experiments.experiment import METRICS, Run
from vpt.experiments.runner import RunListener
from vpt.experiments.store import Record


class BenchProgress(ConsoleListener, RunListener):
    """Shows runs, how many of them are done, and the time left."""

    def progress(self, done: int, total: int, seconds_left: float | None) -> None:
        rest = "" if seconds_left is None or done == total else f"{format_duration(seconds_left)} left"
        if self.console.is_terminal:
            self._update_bar("runs", done, total, rest)
        elif done != self._completed_steps:
            self.console.print(f"{done}/{total} runs  {rest}".rstrip(), markup=False)
        self._completed_steps = done

    def ended(self, run: Run, record: Record) -> None:
        score: str = record.status
        if record.metric is not None:
            score = f"{METRICS[record.metric]} {100 * record.scores[record.metric]:.1f} % on {record.scores['split']}"
        text = f"{run.label}  {score}  {format_duration(record.cost['wall_seconds'])}"
        self.console.print(f"{text}  {record.error}".rstrip(), markup=False, soft_wrap=True)
