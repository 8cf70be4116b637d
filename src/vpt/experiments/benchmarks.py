"""The benchmarks that come with vpt, as rows of a plan: a folder for each task, made by `vpt data prepare`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vpt.core.text import bullets
from vpt.datasets.catalog import BENCHMARKS, resolve_tasks, task_folder
from vpt.errors import DataError
from vpt.experiments.experiment import Task


def are_builtin(names: Sequence[str]) -> bool:
    """Whether all of these are benchmarks that come with vpt."""
    return bool(names) and all(name in BENCHMARKS for name in names)


def task_rows(names: Sequence[str], root: Path | None, plan: Path) -> list[dict[str, Any]]:
    """Rows of [[tasks]]. root: the folder of prepared tasks. Raises DataError naming every task that is not there."""
    tasks = resolve_tasks(names)
    missing = [task.name for task in tasks if root is None or not task_folder(root, task).is_dir()]
    if missing or root is None:
        reason = "no folder was named: give --data FOLDER" if root is None else f"not in {root}"
        commands = [f"vpt data prepare {name} --from DOWNLOADS --out {root or 'FOLDER'}" for name in missing]
        raise DataError(
            f"{plan}: {len(missing)} tasks are not there, {reason}:{bullets(commands, limit=len(commands))}"
        )
    return [
        {
            "name": task.name,
            "data": str(task_folder(root, task).resolve()),
            "group": task.group,
            "resize": task.resize,
            "augment": task.augment,
        }
        for task in tasks
    ]


def check_sizes(names: Sequence[str], tasks: Iterable[Task], plan: Path) -> None:
    """Raise DataError naming every task of these benchmarks that has not as many images as it should."""
    sizes = {row.name: row.sizes for row in resolve_tasks(names)}
    mismatches = [
        f"{task.name}: {split} has {task.images[split]} images instead of {size}"
        for task in tasks
        for split, size in sizes.get(task.name, {}).items()
        if size is not None and task.images[split] != size
    ]
    if mismatches:
        raise DataError(f"{plan}: these are not the tasks of the benchmark:{bullets(mismatches)}\nprepare them again")
