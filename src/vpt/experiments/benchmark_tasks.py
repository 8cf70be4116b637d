"""The tasks of a plan: rows of its own, those of a file, and those of the benchmarks that come with vpt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vpt.core.text import bullets
from vpt.datasets.catalog import BENCHMARKS, resolve_tasks, task_folder
from vpt.errors import DataError, SpecError
from vpt.experiments.design import Protocol, Task
from vpt.experiments.plan_schema import BenchmarkTables, ClassificationTaskTable, PlanTables, TaskTable
from vpt.experiments.plan_validation import ErrorCollector, read_toml, validate
from vpt.experiments.tasks import list_task


def list_tasks(
    tables: PlanTables, path: Path, data: Path | None, protocol: Protocol, collector: ErrorCollector, *, choosing: bool
) -> tuple[Task, ...]:
    """List the data of all tasks of a plan, those of its benchmark first.

    Args:
        tables: Tables of the plan.
        path: File of the plan.
        data: Folder with the prepared tasks of a benchmark; None takes the one that the plan names.
        protocol: Protocol of the plan, which says how data are split.
        collector: Receives every error.
        choosing: Settings are selected on val, so that each task must have some.

    Returns:
        The tasks whose data can be used.
    """
    rows: list[tuple[TaskTable, Path]] = []
    names: list[str] = getattr(tables, "benchmark", [])
    builtin = bool(names) and all(name in BENCHMARKS for name in names)
    if builtin:
        named = getattr(tables, "data", None)
        with collector.collect():
            rows += [(row, path) for row in _builtin_rows(names, data or (named and path.parent / named), path)]
    else:
        for file in (path.parent / name for name in names):
            with collector.collect():
                benchmark = validate(BenchmarkTables, read_toml(file), str(file), collector)
                rows += [(row, file) for row in benchmark.tasks]
    rows += [(row, path) for row in tables.tasks]
    tasks = []
    for row, file in rows:
        with collector.collect():
            tasks.append(list_task(row, file, protocol, choosing=choosing))
    with collector.collect():
        if builtin:
            _check_sizes(names, tasks, path)
        elif not rows and not collector.errors:
            raise SpecError(f"{path} names no tasks; add [[tasks]] tables, or benchmark = a file that has them")
    return tuple(tasks)


def _builtin_rows(names: Sequence[str], root: Path | None, plan: Path) -> list[ClassificationTaskTable]:
    """Return the rows of benchmarks that come with vpt, whose tasks `vpt data prepare` has put into a folder."""
    tasks = resolve_tasks(names)
    missing = [task.name for task in tasks if root is None or not task_folder(root, task).is_dir()]
    if missing or root is None:
        reason = "no folder was named: give --data FOLDER" if root is None else f"not in {root}"
        commands = [f"vpt data prepare {name} --from DOWNLOADS --out {root or 'FOLDER'}" for name in missing]
        text = bullets(commands, limit=len(commands))
        raise DataError(f"{plan}: {len(missing)} tasks are not there, {reason}:{text}")
    rows = ({key: getattr(task, key) for key in ("name", "group", "resize", "augment")} for task in tasks)
    folders = (str(task_folder(root, task).resolve()) for task in tasks)
    return [ClassificationTaskTable(data=data, **row) for data, row in zip(folders, rows, strict=True)]


def _check_sizes(names: Sequence[str], tasks: Iterable[Task], plan: Path) -> None:
    """Check that every task of these benchmarks has as many images as it was published with."""
    sizes = {row.name: row.sizes for row in resolve_tasks(names)}
    mismatches = [
        f"{task.name}: {split} has {task.images[split]} images instead of {size}"
        for task in tasks
        for split, size in sizes.get(task.name, {}).items()
        if size is not None and task.images[split] != size
    ]
    if mismatches:
        raise DataError(f"{plan}: these are not the tasks of the benchmark:{bullets(mismatches)}\nprepare them again")
