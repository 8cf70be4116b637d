"""All runs of an experiment as tables: CSV, Parquet, or the result of an SQL query."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from vpt.backbones import load_backbone
from vpt.core.optional import import_optional
from vpt.core.text import one_line
from vpt.errors import BackboneError, SpecError
from vpt.experiments.reports import table
from vpt.experiments.reports.cell_verdicts import OF_CELLS, judge_cells, judge_record
from vpt.experiments.results import load_results
from vpt.experiments.selection import cell_runs
from vpt.experiments.store import Record, Store
from vpt.training.verdicts import Verdict

Columns = dict[str, type[str] | type[int] | type[float]]

_SCORES = ("top1", "mean_per_class", "miou", "pixel_accuracy")  # metrics that records may have
_SHARED: Columns = {
    "task": str, "group": str, "method": str, "spec": str, "stage": str, "status": str, "seed": int, "backbone": str,
    "fingerprint": str, "image_size": int, "optimizer": str, "learning_rate": float, "weight_decay": float,
    "epochs": int, "batch_size": int, "eval_split": str, "trainable": int, "total": int, "seconds": float,
    "wall_seconds": float, "peak_memory_bytes": int, "energy_joules": float, "file_bytes": int, "device": str,
    "processor": str, "gpus": str, "vpt": str, "torch": str, "timm": str, "numpy": str, "python": str, "ended": str,
    "error": str,
}  # fmt: skip
RUN_COLUMNS: Columns = {"id": str, **_SHARED, **dict.fromkeys(_SCORES, float), "verdict": str}
METRIC_COLUMNS: Columns = {"run_id": str, **_SHARED, "metric": str, "value": float, "verdict": str}
_READ_ACTIONS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
_QUERY_HELP = (
    f"write one SELECT statement; the table is runs, its columns are {', '.join(RUN_COLUMNS)}; or metrics, with "
    "run_id, metric, value and verdict in place of id and the scores"
)
_SQL_TYPES = {str: "TEXT", int: "INTEGER", float: "REAL"}


def run_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the runs of an experiment in the order of its plan.

    Args:
        folder: Folder of the experiment.

    Yields:
        The values of `RUN_COLUMNS` by name; None for a value that the run does not have. Scores are fractions.

    Raises:
        DataError: The folder holds no experiment.
    """
    for record, shared, verdict in _read_runs(folder):
        scores = {name: record.scores.get(name) for name in _SCORES}
        yield {"id": record.id, **shared, **scores, "verdict": verdict}


def metric_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each run and metric; a run without scores has one row without a metric.

    Args:
        folder: Folder of the experiment.

    Yields:
        The values of `METRIC_COLUMNS` by name; None for a value that the run does not have.

    Raises:
        DataError: The folder holds no experiment.
    """
    for record, shared, verdict in _read_runs(folder):
        scores = {name: float(value) for name, value in record.scores.items() if isinstance(value, int | float)}
        for metric, value in scores.items() or [(None, None)]:
            yield {"run_id": record.id, **shared, "metric": metric, "value": value, "verdict": verdict}


def _read_runs(folder: Path) -> Iterator[tuple[Record, dict[str, Any], str | None]]:
    """Yield the records in the order of the plan, each with the columns that both tables have, and its verdicts.

    A run that two rows of the plan share is in the tables once for each of them.
    Verdicts on a cell (its grid, its scores on val and test) are those of its final runs.
    """
    store = Store(folder)
    results, records = load_results(store), store.records()
    experiment = results.experiment
    of_cells: dict[tuple[str, str], list[Verdict]] = {}
    for one in judge_cells(results):
        of_cells.setdefault((one.task, one.method), []).append(one)
    cells = (cell_runs(experiment, task, row, records) for task, row in experiment.cells())
    for run in (run for stages in cells for runs in stages for run in runs):
        if run.id not in records:
            continue
        record, environment = records[run.id], records[run.id].provenance
        values = {
            **record.config["training"], **record.config, **record.parameters, **record.cost, **environment,
            **environment.get("versions", {}), **vars(record),
            "task": run.task.name,
            "group": run.task.group,
            "method": run.method,
            "spec": record.config["method"],
            "image_size": record.config.get("image_size") or _own_image_size(record.config["backbone"]),
            "eval_split": record.scores.get("split"),
            "device": environment.get("device", "cuda" if environment.get("gpus") else "cpu"),
            "gpus": "; ".join(environment.get("gpus", [])),
            "error": one_line(record.error),
        }  # fmt: skip
        verdicts = judge_record(record, run.task)
        if run.stage != "search":
            kinds = {verdict.kind for verdict in verdicts}
            verdicts += [v for v in of_cells.get((run.task.name, run.method), []) if v.kind in OF_CELLS - kinds]
        text = "; ".join(f"{verdict.kind}: {verdict.evidence}" for verdict in verdicts) or None
        yield record, {n: None if values.get(n) is None else kind(values[n]) for n, kind in _SHARED.items()}, text


@cache
def _own_image_size(backbone: str) -> int | None:
    """Return the side of the input of a backbone in pixels; None if this timm does not know the backbone."""
    try:
        return load_backbone(backbone, device="meta").preprocessing.size
    except BackboneError:
        return None


def to_csv(folder: Path) -> str:
    """Return the metrics of all runs of a folder as CSV.

    Args:
        folder: Folder of the experiment.

    Returns:
        The columns `METRIC_COLUMNS`, a row for each run and metric.
    """
    return table.to_csv(list(METRIC_COLUMNS), (list(row.values()) for row in metric_rows(folder)))


def to_parquet(folder: Path) -> bytes:
    """Return the metrics of all runs of a folder as a Parquet file.

    Args:
        folder: Folder of the experiment.

    Returns:
        The columns `METRIC_COLUMNS`, a row for each run and metric.

    Raises:
        VptError: pyarrow is not installed.
    """
    arrow = import_optional("pyarrow", "parquet", "a Parquet file")
    kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in METRIC_COLUMNS.items()])
    sink = arrow.BufferOutputStream()
    parquet = import_optional("pyarrow.parquet", "parquet", "a Parquet file")
    parquet.write_table(arrow.Table.from_pylist(list(metric_rows(folder)), schema=schema), sink)
    return bytes(sink.getvalue())


def query(folder: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run a SELECT statement on the runs of a folder.

    SQLite runs the statement on read-only tables in memory.

    Args:
        folder: Folder of the experiment.
        sql: SELECT statement on the tables `runs`, which has `RUN_COLUMNS`, and `metrics`, which has `METRIC_COLUMNS`.

    Returns:
        The names of the columns of the result, and its rows: texts, numbers and None; bytes as hexadecimal digits.

    Raises:
        SpecError: SQLite cannot run the statement, or it is not a SELECT statement.
    """
    with closing(sqlite3.connect(":memory:")) as database:
        tables = {"runs": (RUN_COLUMNS, run_rows), "metrics": (METRIC_COLUMNS, metric_rows)}
        for name, (columns, rows_of) in tables.items():
            definitions = ", ".join(f'"{column}" {_SQL_TYPES[kind]}' for column, kind in columns.items())
            database.execute(f"CREATE TABLE {name} ({definitions})")
            placeholders = ", ".join(f":{column}" for column in columns)
            database.executemany(f"INSERT INTO {name} VALUES ({placeholders})", rows_of(folder))
        database.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in _READ_ACTIONS else sqlite3.SQLITE_DENY
        )
        try:
            cursor = database.execute(sql)
            rows = [tuple(each.hex() if isinstance(each, bytes) else each for each in row) for row in cursor]
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise SpecError(f"the query {sql!r} cannot be run: {error}; {_QUERY_HELP}") from error
        if cursor.description is None:
            raise SpecError(f"the query {sql!r} has no result; {_QUERY_HELP}")
        return [column[0] for column in cursor.description], rows
