"""The benchmarks that come with vpt, as rows of a plan: a folder for each task, made by `vpt data prepare`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vpt.core.text import lines
from vpt.datasets.catalog import BENCHMARKS, folder_of, tasks_of
from vpt.errors import DataError
from vpt.experiments.experiment import Task


def are_ours(names: Sequence[str]) -> bool:
    """Whether all of these are benchmarks that come with vpt."""
    return bool(names) and all(name in BENCHMARKS for name in names)


def rows(names: Sequence[str], root: Path | None, plan: Path) -> list[dict[str, Any]]:
    """Rows of [[tasks]]. root: the folder of prepared tasks. Raises DataError naming every task that is not there."""
    tasks = tasks_of(names)
    missing = [task.name for task in tasks if root is None or not folder_of(root, task).is_dir()]
    if missing or root is None:
        where = "no folder was named: give --data FOLDER" if root is None else f"not in {root}"
        commands = [f"vpt data prepare {name} --from DOWNLOADS --out {root or 'FOLDER'}" for name in missing]
        raise DataError(f"{plan}: {len(missing)} tasks are not there, {where}:{lines(commands, most=len(commands))}")
    return [
        {
            "name": task.name,
            "data": str(folder_of(root, task).resolve()),
            "group": task.group,
            "resize": task.resize,
            "augment": task.augment,
        }
        for task in tasks
    ]


def verify(names: Sequence[str], tasks: Iterable[Task], plan: Path) -> None:
    """Raise DataError naming every task of these benchmarks that has not as many images as it should."""
    sizes = {row.name: row.sizes for row in tasks_of(names)}
    faults = [
        f"{task.name}: {part} has {task.images[part]} images instead of {size}"
        for task in tasks
        for part, size in sizes.get(task.name, {}).items()
        if size is not None and task.images[part] != size
    ]
    if faults:
        raise DataError(f"{plan}: these are not the tasks of the benchmark:{lines(faults)}\nprepare them again")
