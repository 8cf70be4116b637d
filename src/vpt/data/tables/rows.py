"""Rows of CSV, JSON Lines and Parquet files, each with its place in the file."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from vpt.core.input_files import require_regular_file
from vpt.core.optional import import_optional
from vpt.core.text import comma_list
from vpt.data.folders.walk import is_image_name
from vpt.errors import DataError

_DELIMITERS = ",;\t"  # and "|", which elsewhere joins several labels
_DELIMITER_LINE = re.compile(r"sep=([,;\t|])\s*", re.IGNORECASE)  # as spreadsheets write it before the columns
_INDEX_COLUMN = re.compile(r"(unnamed: ?\d+|__index_level_\d+__)?", re.IGNORECASE)  # as pandas writes its index
_DECIMAL_COMMA = re.compile(r"-?(\d+|\d{1,3}(\.\d{3})+),\d+")
_CSV_SUFFIXES = (".csv", ".tsv")
_NUM_SAMPLES = 20  # rows that tell what the columns hold


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Args:
        place: Place in the file, such as "labels.csv line 3".
        cells: Column to value: text without spaces around it, a number, a list, or None for an empty cell.
    """

    place: str
    cells: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of a file.

    Args:
        path: The file.
        columns: Names of the columns. An index that pandas wrote is left out.
        rows: The rows.
        decimal_commas: Columns of numbers with decimal commas, which the rows have with points.
        unclear_commas: Columns of texts such as "3,5" in a file whose commas part cells, or that has numbers of its
            own: these texts are numbers with decimal commas, or names.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    decimal_commas: tuple[str, ...] = ()
    unclear_commas: tuple[str, ...] = ()

    def values(self, column: str) -> list[Any]:
        """Return the values of a column."""
        return [row.cells.get(column) for row in self.rows]


def read_table(path: Path, faults: list[str] | None = None, name: str | None = None) -> Table:
    """Read a table.

    Args:
        path: The file.
        faults: Receives a text for each row that cannot be read. Default: only the first rows are read, and a row that
            cannot be read ends the table.
        name: Name of the file in messages. Default: that without its folder.

    Returns:
        The table, without the rows that cannot be read.

    Raises:
        DataError: The file as a whole cannot be read.
        VptError: The file is a Parquet file, and the extra `parquet` is not installed.
    """
    require_regular_file(path, "table", "give a CSV, JSON Lines or Parquet file", DataError)
    found: list[str] = []
    try:
        rows = _rows(path, name or path.name, found)
        read = tuple(rows if faults is not None else islice(rows, _NUM_SAMPLES))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check the file") from error
    if faults is not None:
        faults += found
    table = Table(path, tuple(dict.fromkeys(name for row in read for name in row.cells)), read)
    with_commas = tuple(column for column in table.columns if _has_decimal_commas(table.values(column)))
    if path.suffix.casefold() in _CSV_SUFFIXES and _delimiter_of(path) != ",":
        return with_decimal_points(table, with_commas)
    return replace(table, unclear_commas=with_commas)


def _has_decimal_commas(values: Sequence[Any]) -> bool:
    """Return True for texts that all are numbers, some of them with a decimal comma."""
    texts = [str(value) for value in values if value is not None]
    return any(map(_DECIMAL_COMMA.fullmatch, texts)) and all(
        _DECIMAL_COMMA.fullmatch(text) or re.fullmatch(r"-?\d+", text) for text in texts
    )


def with_decimal_points(table: Table, columns: Sequence[str]) -> Table:
    """Replace decimal commas by points, in place.

    Args:
        table: The table.
        columns: Columns of numbers with decimal commas.

    Returns:
        The table, which names these columns.
    """
    for row in table.rows:
        for column in columns:
            if row.cells.get(column) is not None:
                row.cells[column] = str(row.cells[column]).replace(".", "").replace(",", ".")
    return replace(table, decimal_commas=(*table.decimal_commas, *columns))


def _delimiter_of(path: Path) -> str:
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = next(filter(str.strip, file), "")
    if given := _DELIMITER_LINE.fullmatch(head):
        return given[1]
    return max(_DELIMITERS if any(mark in head for mark in _DELIMITERS) else ",|", key=head.count)


def _rows(path: Path, name: str, faults: list[str]) -> Iterator[Row]:
    suffix = path.suffix.casefold()
    reader = _parquet_rows if suffix == ".parquet" else _json_rows if suffix in (".jsonl", ".ndjson") else _csv_rows
    for place, cells in reader(path, name, faults):
        kept = {key: _cell(value) for key, value in cells.items() if not _INDEX_COLUMN.fullmatch(key.strip())}
        yield Row(place, kept)


def _cell(value: Any) -> Any:
    """Return the value of a cell; None for an empty one."""
    if isinstance(value, str):
        return value.strip() or None
    return None if value != value else value  # NaN is how pandas writes an empty cell


def _csv_rows(path: Path, name: str, faults: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = _delimiter_of(path)
        reader, header, start = csv.reader(file, delimiter=delimiter, strict=True), list[str](), 1
        try:
            for fields in reader:
                place, start = f"{name} line {start}", reader.line_num + 1
                if not any(field.strip() for field in fields):
                    continue
                if not header and _DELIMITER_LINE.fullmatch(delimiter.join(fields)):
                    continue
                if not header:
                    header = _header(path, fields)
                    if not any(map(is_image_name, map(str.strip, fields))):
                        continue
                while len(fields) > len(header) and not fields[-1].strip():
                    fields.pop()
                if len(fields) != len(header):
                    faults.append(f"{place}: {len(fields)} cells, and there are {len(header)} columns")
                    continue
                yield place, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            faults.append(f"{name} line {start}: {error}; is a quotation mark missing?")


def _header(path: Path, fields: list[str]) -> list[str]:
    """Return the names of the columns. Two columns without names, image first or last, are image and label."""
    names = [field.strip() for field in fields]
    are_images = list(map(is_image_name, names))
    if not any(are_images):
        repeated = sorted({name for name in names if name and names.count(name) > 1})
        if repeated:
            raise DataError(f"{path}: two columns are called {comma_list(repeated)}; give each a name of its own")
        return names
    if are_images not in ([True, False], [False, True]):
        raise DataError(
            f"{path} has no line with the names of its columns: it begins with {comma_list(names)}; "
            "add one, such as image,label"
        )
    return ["image" if is_image else "label" for is_image in are_images]


def _json_rows(path: Path, name: str, faults: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{name} line {number}"
            try:
                cells = json.loads(line)
            except (ValueError, RecursionError) as error:
                faults.append(f"{place}: not JSON: {error}")
                continue
            if isinstance(cells, dict):
                yield place, cells
            else:
                faults.append(f'{place}: not a JSON object, such as {{"image": "cat/1.jpg", "label": "cat"}}')


def _parquet_rows(path: Path, name: str, faults: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    parquet = import_optional("pyarrow.parquet", "parquet", f"{path.name}, a Parquet file,")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            names = _class_names(schema.metadata or {})
            kept = [field.name for field in schema if "binary" not in str(field.type)]
            if len(kept) < len(schema):
                raise DataError(
                    f"{path} holds the images themselves; write them out with vpt data import {path} --out FOLDER, and "
                    "give that folder"
                )
            for batch in file.iter_batches(columns=kept):
                for cells in batch.to_pylist():
                    number += 1
                    for column, classes in names.items():
                        if isinstance(cells.get(column), int) and 0 <= cells[column] < len(classes):
                            cells[column] = classes[cells[column]]
                    yield f"{name} row {number}", cells
    except ValueError as error:  # an ArrowInvalid is a ValueError
        raise DataError(f"{path} cannot be read: {error}; write it again") from error


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of the classes of columns for which the metadata of Hugging Face state them."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    return {name: kind["names"] for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"}
