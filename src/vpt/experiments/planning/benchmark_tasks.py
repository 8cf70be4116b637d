"""The tasks of a plan: rows of its own, those of a file, and those of the benchmarks that come with vpt."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from vpt.core.text import bullets, did_you_mean
from vpt.datasets.catalog import BENCHMARKS, TASKS, resolve_tasks, task_folder
from vpt.datasets.task import BenchmarkTask
from vpt.errors import DataError, SpecError
from vpt.experiments.design import Protocol, Task
from vpt.experiments.planning.schema import (
    BenchmarkKeys,
    BenchmarkTables,
    ClassificationTaskTable,
    PlanTables,
    TaskTable,
)
from vpt.experiments.planning.tasks import list_task
from vpt.experiments.planning.validation import ErrorCollector, named_path, read_toml, validate


def read_task_files(tables: PlanTables, path: Path, collector: ErrorCollector) -> list[tuple[TaskTable, Path]]:
    """Return the rows of the files that a plan names as `benchmark`.

    Args:
        tables: Tables of the plan.
        path: File of the plan.
        collector: Receives every error.

    Returns:
        Each row with the file that it is in.
    """
    rows: list[tuple[TaskTable, Path]] = []
    for name in (name for name in getattr(tables, "benchmark", []) if name not in BENCHMARKS):
        with collector.collect():
            file = named_path(name, path, path)
            rows += [(row, file) for row in validate(BenchmarkTables, read_toml(file), str(file), collector).tasks]
    return rows


def list_tasks(
    tables: PlanTables,
    file_rows: Sequence[tuple[TaskTable, Path]],
    path: Path,
    data: Path | None,
    protocol: Protocol,
    collector: ErrorCollector,
    *,
    for_estimate: bool = False,
) -> tuple[Task, ...]:
    """List the data of all tasks of a plan, those of its benchmark first.

    Args:
        tables: Tables of the plan.
        file_rows: Rows of the files that the plan names.
        path: File of the plan.
        data: Folder with the prepared tasks of a benchmark; None takes the one that the plan names.
        protocol: Protocol of the plan, which says how data are split.
        collector: Receives every error.
        for_estimate: Take tasks of benchmarks that are not prepared from the catalog. Default: False.

    Returns:
        The tasks whose data can be used.
    """
    builtin_rows: list[ClassificationTaskTable] = []
    missing: set[str] = set()
    root: Path | None = None
    names = [name for name in getattr(tables, "benchmark", []) if name in BENCHMARKS]
    named = getattr(tables, "data", None)
    for table in getattr(tables, "benchmarks", {}):
        if table not in BENCHMARKS:
            hint = did_you_mean(table, BENCHMARKS)
            collector.errors.append(SpecError(f"{path} has keys for the benchmark {table!r}, which is none; {hint}"))
    if names:
        with collector.collect():
            root = data or (named and named_path(named, path, path))
            known = resolve_tasks(names)
            missing = {task.name for task in known if root is None or not task_folder(root, task).is_dir()}
            if missing and not for_estimate:
                raise _missing_error([task.name for task in known if task.name in missing], root, path)
            builtin_rows = [_builtin_row(task, tables, root) for task in known]
    elif data or named:
        text = f"{path} has no benchmark of vpt, and {data or named} is the folder of the tasks of one"
        collector.errors.append(
            SpecError(f"{text}; leave data out, or add benchmark = {' or '.join(map(repr, BENCHMARKS))}")
        )
    rows = [*file_rows, *((row, path) for row in tables.tasks)]
    tasks = []
    for row, file in [*((row, path) for row in builtin_rows), *rows]:
        with collector.collect():
            if row not in builtin_rows:
                named_path(row.data or row.name, file, path)
            if row.name in missing and row.data is None:
                tasks.append(_catalog_task(row, root))
            else:
                tasks.append(list_task(row, file, protocol))
    with collector.collect():
        if names:
            _check_sizes(names, tasks, path)
        elif not rows and not collector.errors:
            raise SpecError(f"{path} names no tasks; add [[tasks]] tables, or benchmark = a file that has them")
    return tuple(tasks)


def _builtin_row(task: BenchmarkTask, tables: PlanTables, root: Path | None) -> ClassificationTaskTable:
    """Return the row of a task of a benchmark that comes with vpt; its folder is None where there is none."""
    folder = None if root is None else task_folder(root, task)
    shared_keys: dict[str, BenchmarkKeys] = getattr(tables, "benchmarks", {})
    common = shared_keys.get(task.benchmark, BenchmarkKeys()).given()
    row = {key: getattr(task, key) for key in ("name", "group", "resize", "augment")} | common
    return ClassificationTaskTable(data=str(folder.resolve()) if folder and folder.is_dir() else None, **row)


def _missing_error(missing: Sequence[str], root: Path | None, plan: Path) -> DataError:
    reason = "no folder was named: give --data FOLDER" if root is None else f"not in {root}"
    text = bullets([_prepare_command(name, root) for name in missing], limit=len(missing))
    return DataError(f"{plan}: {len(missing)} tasks are not there, {reason}:{text}")


def _prepare_command(name: str, root: Path | None) -> str:
    return f"vpt data prepare {name} --from DOWNLOADS --out {root or 'FOLDER'}"


def _catalog_task(row: TaskTable, root: Path | None) -> Task:
    """Return a task that is not prepared: its classes and images are those of the catalog, its digests are empty."""
    known = TASKS[row.name]
    images = {split: size or 0 for split, size in known.sizes.items()}
    note = f"not prepared; {_prepare_command(row.name, root)}"
    own = row.model_dump(include=set(BenchmarkKeys.model_fields))
    return Task(row.name, row.name, row.group, known.classes, images, dict.fromkeys(images, ""), (note,), **own)


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
