"""All tasks of the benchmarks, by name, and where they lie in a folder that holds several."""

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
    """Tasks by their names or by that of a benchmark, each once. Raises SpecError for a name that is neither."""
    found: dict[str, BenchmarkTask] = {}
    for name in names:
        if name not in TASKS and name not in BENCHMARKS:
            raise SpecError(f"there is no task {name!r}; {did_you_mean(name, [*TASKS, *BENCHMARKS])}")
        for task in BENCHMARKS.get(name, ()) or (TASKS[name],):
            found[task.name] = task
    return tuple(found.values())


def task_folder(root: Path, task: BenchmarkTask) -> Path:
    """Where a task lies in `root`: by its own name, or else as the community's copies call it."""
    own, theirs = root / task.name, root / task.community_name
    return theirs if task.community_name and theirs.is_dir() and not own.is_dir() else own


def task_for_folder(folder: Path) -> BenchmarkTask | None:
    """The task that a folder is called after; None where it is called otherwise."""
    name = folder.resolve().name
    return next((task for task in TASKS.values() if name in (task.name, task.community_name)), None)
