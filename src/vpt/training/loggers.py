"""Loggers that people already have, behind one small interface: `tensorboard:FOLDER`, `mlflow:URI`, `wandb:PROJECT`.

They are told what vpt records anyway; nothing depends on them. Another one is a class here and a line in TRACKERS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from vpt.core.optional import need
from vpt.errors import SpecError, nearest
from vpt.training import Epoch, Recipe
from vpt.training.job import Job, Listener

Values = Mapping[str, float]


class Tracker(Protocol):
    """Is told of runs, one after the other. Steps are epochs, from 1; accuracies are between 0 and 1."""

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        """A run begins. config: everything that decides its result, as JSON values."""

    def log(self, step: int, values: Values) -> None:
        """What one epoch gave."""

    def end(self, scores: Values) -> None:
        """The run is over. scores: its last figures; none for a run that failed."""


class TensorBoard:
    """Event files, one folder for each run. place: the folder above them."""

    def __init__(self, place: str) -> None:
        self.place = Path(place or "runs")
        self._writer_of = need("torch.utils.tensorboard", "tensorboard", "TensorBoard").SummaryWriter

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        self._writer = self._writer_of(self.place / re.sub(r'[<>:"|?*\\]', "_", name))  # not in names of Windows
        self._writer.add_text("config", f"```\n{json.dumps(config, indent=1)}\n```")
        self._last = 0

    def log(self, step: int, values: Values) -> None:
        self._last = step
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def end(self, scores: Values) -> None:
        self.log(self._last, scores)
        self._writer.close()


class MLflow:
    """An MLflow server or folder. place: its tracking URI; MLflow's own default where it is empty."""

    def __init__(self, place: str) -> None:
        self._mlflow = need("mlflow", "mlflow", "MLflow")
        if place:
            self._mlflow.set_tracking_uri(place)

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        self._mlflow.start_run(run_name=name)
        self._mlflow.log_params(flat(config))

    def log(self, step: int, values: Values) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def end(self, scores: Values) -> None:
        self._mlflow.log_metrics(dict(scores))
        self._mlflow.end_run()


class WeightsAndBiases:
    """Weights & Biases. place: the project. Its own settings, such as WANDB_MODE=offline, hold."""

    def __init__(self, place: str) -> None:
        self.place = place or "vpt"
        self._wandb = need("wandb", "wandb", "Weights & Biases")

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        self._run = self._wandb.init(project=self.place, name=name, config=dict(config), reinit="finish_previous")

    def log(self, step: int, values: Values) -> None:
        self._run.log(dict(values), step=step)

    def end(self, scores: Values) -> None:
        self._run.summary.update(dict(scores))
        self._run.finish()


TRACKERS: dict[str, Callable[[str], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def tracker(text: str) -> Tracker:
    """The tracker that a text such as "tensorboard:runs" names.

    Raises SpecError for an unknown one, VptError where its package is not installed.
    """
    name, _, place = text.partition(":")
    if name not in TRACKERS:
        raise SpecError(f"there is no tracker {name!r}; {nearest(name, TRACKERS)}")
    return TRACKERS[name](place)


class Guarded:
    """A tracker that training does not depend on: its first failure is told as a note, and it hears no more."""

    def __init__(self, tracker: Tracker, note: Callable[[str], None]) -> None:
        self.tracker, self.note = tracker, note
        self.failed = False

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        self._pass_on(lambda: self.tracker.begin(name, config))

    def log(self, step: int, values: Values) -> None:
        self._pass_on(lambda: self.tracker.log(step, values))

    def end(self, scores: Values) -> None:
        self._pass_on(lambda: self.tracker.end(scores))

    def _pass_on(self, call: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            call()
        except Exception as error:  # a server that is down, a folder that is full: whatever its package raises
            self.failed = True
            self.note(f"{type(self.tracker).__name__} failed and is told nothing more: {type(error).__name__}: {error}")


def tell(tracker: Tracker, epoch: Mapping[str, Any]) -> None:
    """Pass on one epoch's record; what is not known of it is left out."""
    values = {key: float(value) for key, value in epoch.items() if key != "epoch" and value is not None}
    tracker.log(int(epoch["epoch"]), values)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """One level: {"recipe": {"epochs": 2}} gives {"recipe.epochs": 2}."""

    def items() -> Iterable[tuple[str, Any]]:
        for key, value in config.items():
            if isinstance(value, Mapping):
                yield from flat(value, f"{prefix}{key}.").items()
            else:
                yield f"{prefix}{key}", value

    return dict(items())


class TrackedJob(Listener):
    """Tells `tracker` of one job, and `listener` of everything. A job that goes on is told from its beginning."""

    def __init__(self, listener: Listener, tracker: Tracker, name: str, config: Mapping[str, Any]) -> None:
        self.listener, self.tracker = listener, Guarded(tracker, listener.note)
        self.name, self.config = name, config
        self.begun = False

    def decoding(self, part: str, done: int, total: int) -> None:
        self.listener.decoding(part, done, total)

    def note(self, text: str) -> None:
        self.listener.note(text)

    def begin(self, recipe: Recipe, steps_per_epoch: int, done: Sequence[Epoch]) -> None:
        self.tracker.begin(self.name, self.config)
        self.begun = True
        for epoch in done:
            tell(self.tracker, asdict(epoch))
        self.listener.begin(recipe, steps_per_epoch, done)

    def step(self, epoch: int, step: int, loss: float, step_size: float) -> None:
        self.listener.step(epoch, step, loss, step_size)

    def epoch(self, epoch: Epoch) -> None:
        tell(self.tracker, asdict(epoch))
        self.listener.epoch(epoch)

    def finished(self, scores: Mapping[str, float]) -> None:
        self._end(dict(scores))
        self.listener.finished(scores)

    def close(self) -> None:
        """End what failed or was interrupted."""
        self._end({})

    def _end(self, scores: Values) -> None:
        if self.begun:  # a job that had been done before did not begin
            self.tracker.end(scores)
        self.begun = False


@contextmanager
def tracked(listener: Listener, text: str | None, job: Job) -> Iterator[Listener]:
    """`listener`, and with it the tracker that `text` names, if any, for as long as the job lasts."""
    if text is None:
        yield listener
        return
    both = TrackedJob(listener, tracker(text), job.out.stem, job.as_dict())
    try:
        yield both
    finally:
        both.close()
