"""What a comparison records, passed on to a logger as well: each run when it has ended."""

from __future__ import annotations

from vpt.experiments.experiment import Run
from vpt.experiments.runner import RunListener
from vpt.experiments.store import Record
from vpt.training.loggers import FailSafeLogger, Logger, log_epoch


class TrackedRuns(RunListener):
    """Tells `logger` of every run that ends, and `listener` of everything."""

    def __init__(self, listener: RunListener, logger: Logger) -> None:
        self.listener, self.logger = listener, FailSafeLogger(logger, listener.note)

    def note(self, text: str) -> None:
        self.listener.note(text)

    def progress(self, done: int, total: int, seconds_left: float | None) -> None:
        self.listener.progress(done, total, seconds_left)

    def ended(self, run: Run, record: Record) -> None:
        self.logger.begin(f"{run.task.name}/{run.method}/{run.stage}/{run.id}", record.config)
        for epoch in record.history:
            log_epoch(self.logger, epoch)
        self.logger.end({} if record.score is None else {f"{record.scores['split']}_{record.metric}": record.score})
        self.listener.ended(run, record)
