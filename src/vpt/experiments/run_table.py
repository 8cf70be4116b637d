"""All runs of an experiment as one table: CSV, Parquet, or the answer to an SQL query."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from vpt.core.optional import import_optional
from vpt.errors import SpecError
from vpt.experiments import table
from vpt.experiments.search import resolved_runs
from vpt.experiments.store import Store

COLUMNS: dict[str, type[str] | type[int] | type[float]] = {
    "id": str, "task": str, "group": str, "method": str, "spec": str, "stage": str, "status": str, "seed": int,
    "optimizer": str, "learning_rate": float, "weight_decay": float, "epochs": int, "batch_size": int,
    "eval_split": str, "top1": float, "mean_per_class": float, "miou": float, "pixel_accuracy": float, "trainable": int,
    "total": int, "seconds": float,
    "wall_seconds": float, "peak_memory_bytes": int, "energy_joules": float, "file_bytes": int, "processor": str,
    "gpus": str, "torch": str, "vpt": str, "ended": str, "error": str,
}  # fmt: skip
_READ_ACTIONS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
_QUERY_HELP = f"write one SELECT statement; the table is runs, its columns are {', '.join(COLUMNS)}"
_SQL_TYPES = {str: "TEXT", int: "INTEGER", float: "REAL"}


def run_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the runs of an experiment in the order of its plan.

    Args:
        folder: Folder of the experiment.

    Yields:
        The values of `COLUMNS` by name; None for a value that the run does not have. Scores are fractions.

    Raises:
        DataError: The folder holds no experiment.
    """
    store = Store(folder)
    experiment, records = store.load_experiment(), store.records()
    for run in resolved_runs(experiment, records).values():
        if run.id not in records:
            continue
        record, environment = records[run.id], records[run.id].provenance
        values = {
            **record.config["training"], **record.scores, **record.parameters, **record.cost, **environment,
            **environment.get("versions", {}), **vars(record),
            "task": run.task.name,
            "group": run.task.group,
            "method": run.method,
            "spec": record.config["method"],
            "eval_split": record.scores.get("split"),
            "gpus": "; ".join(environment.get("gpus", [])),
            "error": table.one_line(record.error),
        }  # fmt: skip
        yield {name: None if values.get(name) is None else kind(values[name]) for name, kind in COLUMNS.items()}


def to_csv(folder: Path) -> str:
    """Return all runs of a folder as CSV.

    Args:
        folder: Folder of the experiment.

    Returns:
        All runs of a folder as CSV.
    """
    return table.to_csv(list(COLUMNS), (list(row.values()) for row in run_rows(folder)))


def to_parquet(folder: Path) -> bytes:
    """Return all runs of a folder as a Parquet file.

    Args:
        folder: Folder of the experiment.

    Returns:
        All runs of a folder as a Parquet file.

    Raises:
        VptError: pyarrow is not installed.
    """
    arrow = import_optional("pyarrow", "parquet", "a Parquet file")
    kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    sink = arrow.BufferOutputStream()
    parquet = import_optional("pyarrow.parquet", "parquet", "a Parquet file")
    parquet.write_table(arrow.Table.from_pylist(list(run_rows(folder)), schema=schema), sink)
    return bytes(sink.getvalue())


def query(folder: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Answer a SELECT statement about the runs of a folder.

    The statement is answered by SQLite from a read-only table in memory.

    Args:
        folder: Folder of the experiment.
        sql: SELECT statement on the table `runs`, which has `COLUMNS`.

    Returns:
        The names of the columns of the answer, and its rows.

    Raises:
        SpecError: SQLite cannot answer the statement, or it is not a SELECT statement.
    """
    with closing(sqlite3.connect(":memory:")) as database:
        columns = ", ".join(f'"{name}" {_SQL_TYPES[kind]}' for name, kind in COLUMNS.items())
        database.execute(f"CREATE TABLE runs ({columns})")
        placeholders = ", ".join(f":{name}" for name in COLUMNS)
        database.executemany(f"INSERT INTO runs VALUES ({placeholders})", run_rows(folder))
        database.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in _READ_ACTIONS else sqlite3.SQLITE_DENY
        )
        try:
            cursor = database.execute(sql)
            rows = cursor.fetchall()
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise SpecError(f"the query {sql!r} cannot be answered: {error}; {_QUERY_HELP}") from error
        if cursor.description is None:
            raise SpecError(f"the query {sql!r} has no result; {_QUERY_HELP}")
        return [column[0] for column in cursor.description], rows
