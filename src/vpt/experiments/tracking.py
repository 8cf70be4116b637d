"""Logging of experiments: each run is passed on to a logger when it has ended."""

from __future__ import annotations

from collections.abc import Callable

from vpt.experiments.experiment import Run
from vpt.experiments.store import Record
from vpt.training.callbacks import Callback
from vpt.training.loggers import FailSafeLogger, Logger


class LoggedRuns(Callback):
    """Callback that passes every run on to a logger when it has ended."""

    def __init__(self, logger: Logger, on_note: Callable[[str], None]) -> None:
        """Log runs.

        Args:
            logger: The logger.
            on_note: Function that receives a message if the logger fails.
        """
        self.logger: FailSafeLogger = FailSafeLogger(logger, on_note)

    def on_run_end(self, run: Run, record: Record) -> None:
        """Log a run.

        Args:
            run: The run.
            record: Its record.
        """
        self.logger.begin(f"{run.task.name}/{run.method}/{run.stage}/{run.id}", record.config)
        for epoch in record.history:
            self.logger.log_epoch(epoch)
        self.logger.end({} if record.score is None else {f"{record.scores['split']}_{record.metric}": record.score})
