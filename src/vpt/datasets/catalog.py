"""All benchmark tasks by name, read from the TOML files of this package, and their folders."""

import pkgutil
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vpt.core.text import did_you_mean
from vpt.data.manifest import read_manifest
from vpt.datasets.download_dir import RemoteFile
from vpt.datasets.split_spec import SplitSpec
from vpt.datasets.task import BenchmarkTask, DataSource
from vpt.errors import SpecError


def _read_toml(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8"))


def _read_benchmark(benchmark: str, sources: dict[str, DataSource]) -> tuple[BenchmarkTask, ...]:
    """Return the tasks of a file: a table of options that all tasks share, and one table per task."""
    table = _read_toml(benchmark)
    limits = table["common"].pop("limits", None)
    tasks = []
    for name, row in table["tasks"].items():
        sizes = row.pop("published_sizes")
        options = {
            "published_sizes": {key: None if size == "unknown" else size for key, size in sizes.items()},
            "split_spec": SplitSpec(**row.pop("split_spec"), limits=limits and tuple(limits)),
            "source": sources[row.pop("source")],
            "read_source": pkgutil.resolve_name(f"vpt.datasets.layouts.{row.pop('read_source')}"),
        }
        tasks.append(BenchmarkTask(name=name, benchmark=benchmark, **table["common"], **row, **options))
    return tuple(tasks)


_SOURCES = {
    name: DataSource(name=name, files=tuple(RemoteFile(**file) for file in row.pop("files")), **row)
    for name, row in _read_toml("sources").items()
}
BENCHMARKS: dict[str, tuple[BenchmarkTask, ...]] = {name: _read_benchmark(name, _SOURCES) for name in ("vtab", "fgvc")}
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


def is_folder_of_task(folder: Path, task: BenchmarkTask) -> bool:
    """Return True if a folder is meant as a prepared task, not as data of the same name, such as "flowers".

    Args:
        folder: A folder.
        task: The task that it is named after.

    Returns:
        True if the folder does not exist, if prepared.json is that of a task, or if there is no prepared.json and the
        folder holds a list with the numbers of the task in its name, or all of its lists.

    Raises:
        DataError: The preparation of the folder is not complete, or prepared.json is damaged.
    """
    if not folder.exists():
        return True
    manifest = read_manifest(folder)
    if manifest:  # that of `vpt data import` names no task
        return "task" in manifest
    found = [name for name in task.list_files if (folder / name).is_file()]
    return len(found) == len(task.list_files) or any(re.search(r"\d", name) for name in found)
