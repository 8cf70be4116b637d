"""The live page of one job: progress, curves, time left, notes, and the reason if it fails."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from markupsafe import Markup

from vpt.core.metrics import format_metric
from vpt.core.text import format_duration, printable
from vpt.plots.pages import page_environment
from vpt.plots.run_charts import history_charts
from vpt.tasks.registry import TASKS
from vpt.training.callbacks import Callback, CallbackList, EpochMetrics
from vpt.training.job import Job
from vpt.training.live_page import REFRESH_SECONDS, LivePage
from vpt.training.task_config import TaskConfig

_LAST_LINES = 3  # of the message of a failure
_LAST_NOTES = 20


class TrainingPage(LivePage):
    """Page of a job, `page.html` in its run directory. Of several trainings, one after the other, the last is shown."""

    def __init__(
        self, job: Job, on_failure: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Write no page yet: the first image that is read does, or, where there is a page, the start of training.

        Args:
            job: The job.
            on_failure: Function that receives one message if the page cannot be written.
            clock: Function that returns the time in seconds. Default: the time of this machine.
        """
        super().__init__(job.run_dir / "page.html", on_failure, clock)
        self._title, self._task = job.out.name, TASKS[job.config.task]
        self._state, self._failure, self._xlabel = "reading data", "", "epoch"
        self._history: list[EpochMetrics] = []
        self._notes: list[str] = []
        self._has_read = self._trains = False
        self._steps_per_epoch = self._num_epochs = self._initial_steps = self._steps = 0
        self._started = 0.0

    def on_note(self, text: str) -> None:  # noqa: D102
        self._notes.append(text)

    def on_data_progress(self, split: str, done: int, total: int) -> None:  # noqa: D102
        self._state, self._has_read, self._trains = f"{split}: {done:,} of {total:,} images", True, False
        if self._has_begun or not self.path.exists():  # a finished job that is given again keeps its page
            self._update()

    def on_train_start(  # noqa: D102
        self, config: TaskConfig, steps_per_epoch: int, completed_epochs: Sequence[EpochMetrics]
    ) -> None:
        self._history, self._xlabel = list(completed_epochs), self._task.curve_xlabel(config)
        self._steps_per_epoch, self._num_epochs = steps_per_epoch, config.num_epochs
        self._steps = self._initial_steps = len(completed_epochs) * steps_per_epoch
        self._started = self._clock()
        self._update()

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:  # noqa: D102
        self._steps = (epoch - 1) * self._steps_per_epoch + step
        self._state, self._trains = f"epoch {epoch} of {self._num_epochs}", True
        self._update()

    def on_epoch(self, record: EpochMetrics) -> None:  # noqa: D102
        self._history.append(record)
        self._trains = True
        self._update()

    def on_train_end(self, metrics: Mapping[str, float]) -> None:  # noqa: D102
        splits = ((*key.partition("_")[::2], value) for key, value in metrics.items())
        shown = (f"{split} {self._task.metrics.get(n, n)} {format_metric(n, x)}" for split, n, x in splits)
        self._state = f"done: {', '.join(shown)}"
        self._update()

    def fail(self, error: BaseException) -> None:
        """Show why the job ended early, with the last lines of the message.

        Args:
            error: The error.
        """
        lines = str(error).strip().splitlines()[-_LAST_LINES:]
        self._state, self._failure = "stopped", "\n".join([type(error).__name__, *map(printable, lines)])

    def close(self) -> None:
        """Write the page a last time, if there is one: a job that read no image has none."""
        if self._has_begun or (self._has_read and self._failure):
            super().close()

    def render(self, refresh: bool) -> str:  # noqa: D102
        total, done = self._steps_per_epoch * self._num_epochs, self._steps - self._initial_steps
        is_known = self._trains and done > 0  # after training, which may end early, nothing is left of it
        left = (self._clock() - self._started) / done * (total - self._steps) if is_known else None
        charts = history_charts([asdict(epoch) for epoch in self._history], self._task.metrics, self._xlabel)
        values: dict[str, Any] = {
            "title": printable(self._title),
            "refresh": round(REFRESH_SECONDS) if refresh else None,
            "state": self._state,
            "done": self._steps,
            "total": total,
            "left": format_duration(left) if refresh and left else "",
            "charts": [(heading, Markup(svg)) for heading, svg in charts],
            "failure": self._failure,
            "notes": [printable(note) for note in self._notes[-_LAST_NOTES:]],
        }
        return page_environment("vpt.tasks").get_template("live.html").render(values)


@contextmanager
def follow_on_page(callback: Callback, job: Job) -> Iterator[Callback]:
    """Add the live page of a job to a callback, for the time of the job.

    Args:
        callback: The callback that receives every event of the job.
        job: The job.

    Yields:
        The combined callback.
    """
    page = TrainingPage(job, callback.on_note)
    try:
        yield CallbackList([callback, page])
    except BaseException as error:
        page.fail(error)
        raise
    finally:
        page.close()
