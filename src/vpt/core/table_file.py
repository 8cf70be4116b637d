"""Tables of any length in files: CSV, JSON Lines or Parquet, written batch by batch."""

import codecs
import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from vpt.core.io import write_atomic_with
from vpt.core.optional import import_optional
from vpt.errors import SpecError

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
Row = Mapping[str, Any]


def check_table_path(path: Path, suffixes: Sequence[str] = TABLE_SUFFIXES) -> None:
    """Check the format of a table before it is computed.

    A VptError is raised if the package for Parquet is not installed.

    Args:
        path: The file.
        suffixes: Suffixes of the known formats. Default: those of this module.

    Raises:
        SpecError: The suffix is unknown.
    """
    suffix = path.suffix.casefold()
    if suffix not in suffixes:
        raise SpecError(f"{path} cannot be a table; give a name that ends in {', '.join(suffixes)}")
    if suffix == ".parquet":
        import_optional("pyarrow.parquet", "parquet", "a table in Parquet")


def write_table(path: Path, batches: Iterable[Sequence[Row]]) -> None:
    """Write rows to a file, whole or not at all. Its suffix selects the format.

    Args:
        path: The file.
        batches: Rows, all with the same columns: text, numbers, or lists of floats. CSV has a column for each element
            of a list: "feature" becomes "feature_0", "feature_1" and so on.
    """
    write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[path.suffix.casefold()]
    write_atomic_with(path, lambda file: write(file, batches))


def _write_csv(file: BinaryIO, batches: Iterable[Sequence[Row]]) -> None:
    # A name from the disk that is no valid UTF-8 keeps its bytes.
    table = csv.writer(codecs.getwriter("utf-8")(file, "surrogateescape"), lineterminator="\n")
    is_first = True
    for rows in batches:
        flat = [dict(_flatten(row)) for row in rows]
        if is_first and flat:
            table.writerow(flat[0])
            is_first = False
        table.writerows(row.values() for row in flat)


def _flatten(row: Row) -> Iterable[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, list):
            yield from ((f"{name}_{k}", element) for k, element in enumerate(value))
        else:
            yield name, value


def _write_jsonl(file: BinaryIO, batches: Iterable[Sequence[Row]]) -> None:
    for rows in batches:
        file.writelines(json.dumps(row).encode() + b"\n" for row in rows)


def _write_parquet(file: BinaryIO, batches: Iterable[Sequence[Row]]) -> None:
    arrow = import_optional("pyarrow", "parquet", "a table in Parquet")
    parquet = import_optional("pyarrow.parquet", "parquet", "a table in Parquet")

    def column_type(value: Any) -> Any:
        if isinstance(value, list):
            return arrow.list_(arrow.float32(), len(value))
        return arrow.string() if isinstance(value, str) else arrow.float64()

    writer: Any = None
    try:
        for rows in batches:
            if writer is None:
                schema = arrow.schema([(name, column_type(value)) for name, value in rows[0].items()])
                writer = parquet.ParquetWriter(file, schema)
            valid = [{name: _to_unicode(value) for name, value in row.items()} for row in rows]
            writer.write_table(arrow.Table.from_pylist(valid, schema))
    finally:
        if writer is not None:
            writer.close()


def _to_unicode(value: Any) -> Any:
    """Return text without bytes of no encoding, which Parquet cannot hold."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
