"""All benchmark tasks by name, and their folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vpt.core.text import did_you_mean
from vpt.datasets.fgvc import FGVC
from vpt.datasets.task import BenchmarkTask
from vpt.datasets.vtab import VTAB
from vpt.errors import SpecError

BENCHMARKS: dict[str, tuple[BenchmarkTask, ...]] = {"vtab": VTAB, "fgvc": FGVC}
TASKS: dict[str, BenchmarkTask] = {task.name: task for tasks in BENCHMARKS.values() for task in tasks}


def resolve_tasks(names: Iterable[str]) -> tuple[BenchmarkTask, ...]:
    """Return tasks by the names of tasks or benchmarks, without duplicates.

    Args:
        names: Names of tasks, such as "cifar100", or benchmarks, such as "vtab".

    Returns:
        The tasks.

    Raises:
        SpecError: A name is unknown.
    """
    found: dict[str, BenchmarkTask] = {}
    for name in names:
        if name not in TASKS and name not in BENCHMARKS:
            raise SpecError(f"there is no task or benchmark {name!r}; {did_you_mean(name, [*TASKS, *BENCHMARKS])}")
        for task in BENCHMARKS.get(name, ()) or (TASKS[name],):
            found[task.name] = task
    return tuple(found.values())


def task_folder(root: Path, task: BenchmarkTask) -> Path:
    """Return the folder of a task in a folder of tasks.

    Args:
        root: The folder of tasks.
        task: The task.

    Returns:
        The folder with the name of the task, or with its name in community copies if only that exists.
    """
    own, theirs = root / task.name, root / task.community_name
    return theirs if task.community_name and theirs.is_dir() and not own.is_dir() else own


def task_for_folder(folder: Path) -> BenchmarkTask | None:
    """Return the task that a folder is named after.

    Args:
        folder: A folder.

    Returns:
        The task, or None.
    """
    name = folder.resolve().name
    return next((task for task in TASKS.values() if name in (task.name, task.community_name)), None)
