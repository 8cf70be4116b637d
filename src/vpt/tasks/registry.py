"""The known tasks. Another one is a subclass of `Task` and an entry here."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from vpt.core.text import did_you_mean
from vpt.data.folders.walk import is_folder
from vpt.data.masks.pairs import PairNames
from vpt.data.task_detection import detect_task
from vpt.errors import DataError, SpecError
from vpt.model.tuned_file import Header
from vpt.tasks.base import Task
from vpt.tasks.classification.task import ClassificationTask
from vpt.tasks.segmentation.task import SegmentationTask

TASKS: dict[str, Task] = {task.name: task for task in (ClassificationTask(), SegmentationTask())}


def find_task(name: str, data: str, options: Mapping[str, Any] | None = None) -> Task:
    """Return the task of a run.

    Args:
        name: Name of a task, or "auto" for segmentation of a folder of images and masks and classification of others.
        data: The data.
        options: Options of the run by name, of which those that name folders count. Default: none.

    Returns:
        The task.

    Raises:
        SpecError: There is no such task.
        DataError: The folder cannot be read.
    """
    if name == "auto":
        named = {option.name: (options or {}).get(option.name) for option in fields(PairNames)}
        try:
            in_folder = bool(data) and is_folder(Path(data))
            name = detect_task(Path(data), PairNames(**named)) if in_folder else "classification"
        except OSError as error:
            raise DataError(f"{data} cannot be read: {error.strerror}; correct its permissions") from error
    if name not in TASKS:
        raise SpecError(f"there is no task {name!r}; {did_you_mean(name, TASKS)}")
    return TASKS[name]


def task_of_file(header: Header) -> Task:
    """Return the task of a tuned file.

    Args:
        header: Header of the file.

    Returns:
        The task.
    """
    return TASKS["segmentation" if header.is_dense else "classification"]
