"""Checks that settings can be selected on val, and that images that select settings do not score them, too."""

from collections.abc import Sequence

from vpt.errors import DataError, SpecError
from vpt.experiments.design import MethodRow, Protocol, Task


def check_split_seed(row: MethodRow, protocol: Protocol, source: str) -> None:
    """Check that the runs of a row share their split, if they select a setting.

    Args:
        row: The row.
        protocol: Protocol of the plan.
        source: Name of the plan for the message.

    Raises:
        SpecError: Each run has a split of its own.
    """
    chooses = any(len(settings) > 1 for settings in (row.settings, *row.task_settings.values()))
    if chooses and row.job_options.get("split_seed", protocol.split_seed) is None:
        raise SpecError(
            f'{source}: the method {row.name!r} has several settings, and with split_seed = "run" the test images of '
            "one run select the setting of another; give split_seed a number"
        )


def check_splits(task: Task, tasks: Sequence[Task], rows: Sequence[MethodRow], protocol: Protocol, source: str) -> None:
    """Check that a task has the images that select the settings, and others that final runs are scored on.

    Args:
        task: The task. One that is not prepared is not checked.
        tasks: All tasks of the plan, of which one may select the settings for others.
        rows: Methods of the plan.
        protocol: Protocol of the plan.
        source: Name of the plan for the message.

    Raises:
        DataError: Images are missing.
    """
    if not any(task.digests.values()):
        return
    selecting = next((other for other in tasks if other.name == task.settings_from), task)
    chooses, needed = any(len(row.settings_for(selecting)) > 1 for row in rows), dict[str, str]()
    if chooses and selecting is task:
        needed["val"] = "to choose settings on"
    if (task.train_on or protocol.train_on) == "trainval" or not task.images.get("val"):
        needed["test"] = "to be scored on"
    elif chooses and task.digests["val"] == selecting.digests["val"]:
        needed["test"] = "to be scored on, and its val images choose the settings"
    for split, use in needed.items():
        if not task.images.get(split):
            text = f"{source}: the task {task.name!r} has no {split} images {use}"
            raise DataError(f"{text}; bring some, or set {split}_fraction above 0")
