"""Events of long jobs as JSON lines in a file, for programs that follow them."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from vpt._version import __version__
from vpt.core.io import describe_write_error
from vpt.errors import SpecError, StorageError
from vpt.training import distributed
from vpt.training.callbacks import Callback, EpochMetrics
from vpt.training.task_config import TaskConfig

_START = b'{"event":'  # of each line


class EventWriter(Callback):
    """Callback that writes each event as one line: its name, its Unix time, and its values."""

    def __init__(self, file: FileIO) -> None:
        """Write to a file.

        Args:
            file: The open file, unbuffered: a program that follows it sees whole lines at once.
        """
        self._file = file

    def write(self, event: str, **values: Any) -> None:
        """Write an event.

        Args:
            event: Its name.
            **values: Its values, as JSON values.
        """
        found = {"event": event, "time_seconds": time.time(), **values}
        try:
            self._file.write(to_json(found, inf_nan_mode="null") + b"\n")  # JSON has no NaN
        except OSError as error:
            raise StorageError(describe_write_error(Path(str(self._file.name)), error)) from error

    def on_note(self, text: str) -> None:  # noqa: D102
        self.write("note", text=text)

    def on_data(self, lines: Sequence[str]) -> None:  # noqa: D102
        self.write("data", lines=list(lines))

    def on_data_progress(self, split: str, done: int, total: int) -> None:  # noqa: D102
        self.write("data_progress", split=split, done=done, total=total)

    def on_train_start(  # noqa: D102
        self, config: TaskConfig, steps_per_epoch: int, completed_epochs: Sequence[EpochMetrics]
    ) -> None:
        completed = len(completed_epochs)
        self.write("train_start", epochs=config.num_epochs, steps_per_epoch=steps_per_epoch, completed_epochs=completed)

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:  # noqa: D102
        self.write("step", epoch=epoch, step=step, loss=loss, lr=lr)

    def on_epoch(self, record: EpochMetrics) -> None:  # noqa: D102
        self.write("epoch", **asdict(record))

    def on_train_end(self, metrics: Mapping[str, float]) -> None:  # noqa: D102
        self.write("train_end", metrics=dict(metrics))

    def on_run_start(self, index: int, total: int, label: str, seed: int) -> None:  # noqa: D102
        self.write("run_start", index=index, total=total, label=label, seed=seed)

    def on_run_end(self, run: Any, record: Any) -> None:  # noqa: D102
        values = {"id": record.id, "label": run.label, "status": record.status, "error": record.error}
        self.write("run_end", **values, scores={k: v for k, v in record.scores.items() if isinstance(v, float)})

    def on_progress(self, done: int, total: int, eta_seconds: float | None) -> None:  # noqa: D102
        self.write("progress", done=done, total=total, eta_seconds=eta_seconds)


@contextmanager
def open_events(path: Path | None) -> Iterator[Callback]:
    """Open a file of events. What an earlier job wrote there stays, except a line that a kill cut short.

    Args:
        path: The file; None for no file. Only the main process of a distributed job writes.

    Yields:
        The callback that writes the events.

    Raises:
        SpecError: The file holds something else than events.
        StorageError: The file cannot be written.
    """
    if path is None or distributed.rank() != 0:
        yield Callback()
        return
    with _open(path) as file:
        writer = EventWriter(file)
        writer.write("start", version=__version__, process=os.getpid())
        try:
            yield writer
        except BaseException as error:
            writer.write("error", type=type(error).__name__, message=str(error))
            raise
        writer.write("end")


def _open(path: Path) -> FileIO:
    """Open a file to append whole lines. One that holds something else is left as it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = FileIO(path, "a+")
        file.seek(0)
        if not _START.startswith(file.read(len(_START))):  # a kill may have cut even this short
            file.close()
            raise SpecError(f"{path} is no file of events; choose another name")
        _drop_unfinished_line(file)
    except OSError as error:
        raise StorageError(describe_write_error(path, error)) from error
    return file


def _drop_unfinished_line(file: FileIO) -> None:
    """Cut a file at the end of its last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    file.truncate(end)
