"""The known tasks. Another one is a subclass of `Task` and an entry here."""

from pathlib import Path

from vpt.core.text import did_you_mean
from vpt.data.segmentation_layouts import detect_folder_layout
from vpt.errors import SpecError
from vpt.model.tuned_file import Header
from vpt.tasks.base import Task
from vpt.tasks.classification.task import ClassificationTask
from vpt.tasks.segmentation.task import SegmentationTask

TASKS: dict[str, Task] = {task.name: task for task in (ClassificationTask(), SegmentationTask())}


def find_task(name: str, data: str) -> Task:
    """Return the task of a run.

    Args:
        name: Name of a task, or "auto" for segmentation of a folder of images and masks and classification of others.
        data: The data.

    Returns:
        The task.

    Raises:
        SpecError: There is no such task.
    """
    if name == "auto":
        is_folder = bool(data) and Path(data).is_dir()
        name = "segmentation" if is_folder and detect_folder_layout(Path(data)) is not None else "classification"
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
