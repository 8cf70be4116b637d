"""Progress of data preparation, of a series of runs, and of an experiment."""

from collections.abc import Sequence

from vpt.api.progress import ConsoleCallback, ConsoleProgress
from vpt.core.text import format_duration
from vpt.experiments.experiment import METRICS, Run
from vpt.experiments.reports.cell_verdicts import judge_record
from vpt.experiments.store import Record
from vpt.training import Callback, EpochMetrics


class DataProgress(ConsoleProgress):
    """A context manager that is called as (description, done, total)."""

    _stage = ""

    def __init__(self, events: Callback) -> None:
        """Prepare the progress bar.

        Args:
            events: Callback that receives the progress, too.
        """
        super().__init__()
        self._events = events

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a stage.

        Args:
            stage: Description of the stage.
            done: Number of completed items.
            total: Number of items.
        """
        self._events.on_data_progress(stage, done, total)
        if stage != self._stage:
            self._stage = stage
            self._restart_clock()
            while self._tasks:
                self._bar.remove_task(self._tasks.popitem()[1])
        if self.console.is_terminal:
            self._update_bar(stage, done, total)
        elif done and self._is_line_due():
            self._print_with_time_left(f"{stage}: {done}/{total}", done, total - done)


class SeriesProgress(ConsoleCallback):
    """One live line per run on a terminal, one plain line per run in a pipe."""

    def on_data(self, lines: Sequence[str]) -> None:
        """Show nothing, because each run would repeat it."""

    def on_data_progress(self, split: str, done: int, total: int) -> None:
        """Show nothing, because each run would repeat it."""

    def on_note(self, text: str) -> None:
        """Print nothing, because each run would repeat it."""

    def on_epoch(self, record: EpochMetrics) -> None:
        """Print nothing, because a run has one line."""

    def on_run_start(self, index: int, total: int, label: str, seed: int) -> None:  # noqa: D102
        self.prefix: str = f"run {index}/{total}  {label}  seed {seed}  "
        if not self.console.is_terminal:
            self.print_line(self.prefix.strip())


class BenchProgress(ConsoleCallback):
    """Shows runs that have ended, the number of runs, and the remaining time of all of them alone."""

    _time_left = ()

    def on_data(self, lines: Sequence[str]) -> None:
        """Show nothing, because each run would repeat it."""

    def _print_with_time_left(self, text: str, completed: int, remaining: int) -> None:
        """Print a line of a run without a time of its own."""
        super()._print_with_time_left(text, completed, 0)

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
            self.print_line(f"{done}/{total} runs  {rest}".rstrip())
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
        verdicts = [] if record.error else judge_record(record, run.task)
        self.print_line("  ".join((text, record.error, *(verdict.kind for verdict in verdicts))).rstrip())
