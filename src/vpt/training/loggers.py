"""Experiment loggers behind one interface: `tensorboard:FOLDER`, `mlflow:URI`, `wandb:PROJECT`.

They receive what vpt records anyway; no result depends on them. Another logger is a class here and an entry in LOGGERS.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from vpt.core.optional import import_optional
from vpt.core.text import did_you_mean
from vpt.errors import SpecError
from vpt.training.callbacks import Callback, CallbackList, EpochMetrics
from vpt.training.job import Job
from vpt.training.run_directory import flatten, read_job_record
from vpt.training.task_config import TaskConfig

Values = Mapping[str, float]


class Logger(Protocol):
    """A logger of runs, one after the other. Steps are epochs, from 1; metrics are fractions, except r2 and mae."""

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        """Start a run.

        Args:
            name: Name of the run.
            config: Everything that decides its result, as JSON values.
        """

    def log(self, step: int, values: Values) -> None:
        """Log the metrics of an epoch.

        Args:
            step: Number of the epoch, from 1.
            values: Metrics by name.
        """

    def end(self, scores: Values) -> None:
        """End the run.

        Args:
            scores: Final metrics by name; none for a run that failed.
        """


class TensorBoardLogger:
    """TensorBoard event files, in one folder for each run."""

    def __init__(self, log_dir: str) -> None:
        """Log to a folder.

        Args:
            log_dir: The folder; "runs" if it is empty.
        """
        self.log_dir: Path = Path(log_dir or "runs")
        self._writer_class = import_optional("torch.utils.tensorboard", "tensorboard", "TensorBoard").SummaryWriter

    def begin(self, name: str, config: Mapping[str, Any]) -> None:  # noqa: D102
        self._writer = self._writer_class(self.log_dir / re.sub(r'[<>:"|?*\\]', "_", name))  # not in names of Windows
        self._writer.add_text("config", f"```\n{json.dumps(config, indent=1)}\n```")
        self._last_step = 0

    def log(self, step: int, values: Values) -> None:  # noqa: D102
        self._last_step = step
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def end(self, scores: Values) -> None:  # noqa: D102
        self.log(self._last_step, scores)
        self._writer.close()


class MLflowLogger:
    """Runs of an MLflow server or folder."""

    def __init__(self, tracking_uri: str) -> None:
        """Log to MLflow.

        Args:
            tracking_uri: The tracking URI; MLflow's own default if it is empty.
        """
        self._mlflow = import_optional("mlflow", "mlflow", "MLflow")
        if tracking_uri:
            self._mlflow.set_tracking_uri(tracking_uri)

    def begin(self, name: str, config: Mapping[str, Any]) -> None:  # noqa: D102
        self._mlflow.start_run(run_name=name)
        self._mlflow.log_params(flatten(config))

    def log(self, step: int, values: Values) -> None:  # noqa: D102
        self._mlflow.log_metrics(dict(values), step=step)

    def end(self, scores: Values) -> None:  # noqa: D102
        self._mlflow.log_metrics(dict(scores))
        self._mlflow.end_run()


class WandbLogger:
    """Runs of Weights & Biases. Its own settings, such as WANDB_MODE=offline, apply."""

    def __init__(self, project: str) -> None:
        """Log to a project.

        Args:
            project: The project; "vpt" if it is empty.
        """
        self.project: str = project or "vpt"
        self._wandb = import_optional("wandb", "wandb", "Weights & Biases")

    def begin(self, name: str, config: Mapping[str, Any]) -> None:  # noqa: D102
        self._run = self._wandb.init(project=self.project, name=name, config=dict(config), reinit="finish_previous")

    def log(self, step: int, values: Values) -> None:  # noqa: D102
        self._run.log(dict(values), step=step)

    def end(self, scores: Values) -> None:  # noqa: D102
        self._run.summary.update(dict(scores))
        self._run.finish()


LOGGERS: dict[str, Callable[[str], Logger]] = {
    "tensorboard": TensorBoardLogger,
    "mlflow": MLflowLogger,
    "wandb": WandbLogger,
}


def make_logger(text: str) -> Logger:
    """Return a logger.

    A VptError is raised if its package is not installed.

    Args:
        text: Name and target, such as "tensorboard:runs".

    Returns:
        The logger.

    Raises:
        SpecError: There is no such logger.
    """
    name, _, target = text.partition(":")
    if name not in LOGGERS:
        raise SpecError(f"there is no logger {name!r}; {did_you_mean(name, LOGGERS)}")
    return LOGGERS[name](target)


@dataclass
class FailSafeLogger:
    """A logger whose first failure becomes a note and ends the logging, but not the training.

    Attributes:
        logger: The logger.
        note: Function that receives the note.
        failed: True after the first failure.
    """

    logger: Logger
    note: Callable[[str], None]
    failed: bool = False

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        """Start a run.

        Args:
            name: Name of the run.
            config: Everything that decides its result, as JSON values.
        """
        self.attempt(self.logger.begin, name, config)

    def log_epoch(self, epoch: Mapping[str, Any]) -> None:
        """Log the metrics of an epoch that are not None.

        Args:
            epoch: Fields of an `EpochMetrics`.
        """
        known = {**epoch, **epoch.get("metrics", {})}
        values = {key: float(x) for key, x in known.items() if key not in ("epoch", "metrics") and x is not None}
        self.attempt(self.logger.log, int(epoch["epoch"]), values)

    def end(self, scores: Values) -> None:
        """End the run.

        Args:
            scores: Final metrics by name; none for a run that failed.
        """
        self.attempt(self.logger.end, scores)

    def attempt(self, method: Callable[..., None], *args: object) -> None:
        """Call a function. Its error becomes a note, and nothing is called from then on.

        Args:
            method: The function.
            *args: Its arguments.
        """
        if self.failed:
            return
        try:
            method(*args)
        except Exception as error:  # a server that is down, a folder that is full: whatever its package raises
            self.failed = True
            reason = f"{type(error).__name__}: {error}"
            self.note(f"{type(self.logger).__name__} failed, and nothing more is logged: {reason}")


@dataclass
class LoggerCallback(Callback):
    """Callback that passes one job on to a logger. A resumed job is logged from its first epoch.

    Attributes:
        logger: The logger.
        name: Name of the run.
        config: Everything that decides the result, as JSON values.
        started: True while the job trains.
    """

    logger: FailSafeLogger
    name: str
    config: Mapping[str, Any]
    started: bool = False

    def on_train_start(  # noqa: D102
        self, config: TaskConfig, steps_per_epoch: int, completed_epochs: Sequence[EpochMetrics]
    ) -> None:
        self.logger.begin(self.name, {**self.config, "config": config.to_dict()})
        self.started = True
        for epoch in completed_epochs:
            self.logger.log_epoch(asdict(epoch))

    def on_epoch(self, record: EpochMetrics) -> None:  # noqa: D102
        self.logger.log_epoch(asdict(record))

    def on_train_end(self, metrics: Mapping[str, float]) -> None:  # noqa: D102
        if self.started:  # a job that was finished before does not train
            self.logger.end(metrics)
        self.started = False


@dataclass
class SearchLogger(Callback):
    """Callback that logs what a search ships, once that is scored. What the search only tries is not logged.

    Attributes:
        logger: The logger.
        job: A job of the search. What ships has its run directory.
    """

    logger: FailSafeLogger
    job: Job

    def on_train_end(self, metrics: Mapping[str, float]) -> None:  # noqa: D102
        if metrics:  # of a job that did not fail
            self.logger.attempt(self._log, metrics)

    def _log(self, metrics: Mapping[str, float]) -> None:
        record, epochs = read_job_record(self.job), self.job.run_dir / "metrics.jsonl"
        assert record is not None, "a search that has ended has written its job"
        self.logger.begin(self.job.out.stem, record["job"])
        for line in epochs.read_text(encoding="utf-8").splitlines() if epochs.exists() else ():  # a probe has none
            self.logger.log_epoch(json.loads(line))
        self.logger.end(metrics)


@contextmanager
def log_job(callback: Callback, text: str | None, job: Job, *, searches: bool = False) -> Iterator[Callback]:
    """Add the logger that `text` names to a callback, for the time of one job.

    Args:
        callback: The callback that receives every event of the job.
        text: Name of a logger, such as "tensorboard:runs", or None for no logger.
        job: The job that is logged.
        searches: True for a search, which ends with a job in the same run directory. Default: False.

    Yields:
        The combined callback.
    """
    if text is None:
        yield callback
        return
    fail_safe = FailSafeLogger(make_logger(text), callback.on_note)
    logger = SearchLogger(fail_safe, job) if searches else LoggerCallback(fail_safe, job.out.stem, job.to_dict())
    try:
        yield CallbackList([logger, callback])
    finally:
        logger.on_train_end({})  # ends the log of a job that failed or was interrupted
