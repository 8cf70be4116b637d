"""All runs as one table: for a spreadsheet, a data frame, or questions in SQL."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from vpt.core.optional import import_optional
from vpt.errors import SpecError
from vpt.experiments.search import resolved_runs
from vpt.experiments.store import Store

COLUMNS = {
    "id": str, "task": str, "group": str, "method": str, "spec": str, "stage": str, "status": str, "seed": int,
    "optimizer": str, "learning_rate": float, "weight_decay": float, "epochs": int, "batch_size": int,
    "eval_split": str, "top1": float, "mean_per_class": float, "miou": float, "pixel_accuracy": float, "trainable": int,
    "total": int, "seconds": float,
    "wall_seconds": float, "peak_memory_bytes": int, "energy_joules": float, "file_bytes": int, "processor": str,
    "gpus": str, "torch": str, "vpt": str, "ended": str, "error": str,
}  # fmt: skip
_SQL_TYPES = {str: "TEXT", int: "INTEGER", float: "REAL"}


def run_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The runs of the plan in `folder`, in the plan's order, with `COLUMNS`; None for what a run does not have.

    Accuracies are between 0 and 1. Raises DataError where there is no comparison.
    """
    store = Store(folder)
    experiment, records = store.load_experiment(), store.records()
    for run_id, run in resolved_runs(experiment, records).items():
        if run_id not in records:
            continue
        record = records[run_id]
        environment = record.provenance
        values = {
            **record.config["training"], **record.scores, **record.parameters, **record.cost, **environment,
            **environment.get("versions", {}),
            "id": run_id,
            "task": run.task.name,
            "group": run.task.group,
            "method": run.method,
            "spec": record.config["method"],
            "stage": record.stage,
            "status": record.status,
            "eval_split": record.scores.get("split"),
            "gpus": "; ".join(environment.get("gpus", [])),
            "error": " ".join(record.error.split()),
        }  # fmt: skip
        yield {name: None if values.get(name) is None else kind(values[name]) for name, kind in COLUMNS.items()}


def to_csv(folder: Path) -> str:
    """The runs as CSV."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(run_rows(folder))
    return text.getvalue()


def to_parquet(folder: Path) -> bytes:
    """The runs as a Parquet file. Raises VptError where pyarrow is not installed."""
    arrow = import_optional("pyarrow", "parquet", "a Parquet file")
    kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    sink = arrow.BufferOutputStream()
    parquet = import_optional("pyarrow.parquet", "parquet", "a Parquet file")
    parquet.write_table(arrow.Table.from_pylist(list(run_rows(folder)), schema=schema), sink)
    return bytes(sink.getvalue())


def query(folder: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Ask in SQL, as SQLite has it: the table `runs`, with `COLUMNS`. Names of the answer's columns, and its rows.

    The table is made from the records and lies in memory: nothing that is said can change them. Raises SpecError for
    what SQLite does not understand.
    """
    with closing(sqlite3.connect(":memory:")) as database:
        columns = ", ".join(f'"{name}" {_SQL_TYPES[kind]}' for name, kind in COLUMNS.items())
        database.execute(f"CREATE TABLE runs ({columns})")
        placeholders = ", ".join(f":{name}" for name in COLUMNS)
        database.executemany(f"INSERT INTO runs VALUES ({placeholders})", run_rows(folder))
        try:
            cursor = database.execute(sql)
            found = cursor.fetchall()
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise SpecError(f"SQLite says: {error}; the table is runs, its columns are {', '.join(COLUMNS)}") from error
        return [column[0] for column in cursor.description or ()], found
