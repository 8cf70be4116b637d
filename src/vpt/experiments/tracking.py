"""What a comparison records, passed on to a tracker as well: each run when it has ended."""

from __future__ import annotations

from vpt.experiments.experiment import Run
from vpt.experiments.runner import RunListener
from vpt.experiments.store import Record
from vpt.training.loggers import Guarded, Tracker, tell


class TrackedRuns(RunListener):
    """Tells `tracker` of every run that ends, and `listener` of everything."""

    def __init__(self, listener: RunListener, tracker: Tracker) -> None:
        self.listener, self.tracker = listener, Guarded(tracker, listener.note)

    def note(self, text: str) -> None:
        self.listener.note(text)

    def progress(self, done: int, total: int, seconds_left: float | None) -> None:
        self.listener.progress(done, total, seconds_left)

    def ended(self, run: Run, record: Record) -> None:
        self.tracker.begin(f"{run.task.name}/{run.method}/{run.stage}/{run.id}", record.config)
        for epoch in record.history:
            tell(self.tracker, epoch)
        self.tracker.end({} if record.score is None else {f"{record.scores['part']}_{record.metric}": record.score})
        self.listener.ended(run, record)
