"""Labels in the columns of tables: one class for each image, several, or a number."""

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.core.text import comma_list
from vpt.data.label_kinds import KindName, kind_of_columns
from vpt.data.tables.rows import Row, Table
from vpt.errors import DataError

Label = str | tuple[str, ...] | float

_SEPARATOR = "|"
_BINARY = {"0": False, "1": True, "false": False, "true": True}


def detect_label_kind(tables: Sequence[tuple[Table, tuple[str, ...]]]) -> KindName:
    """Return the kind of the labels of some tables.

    Args:
        tables: The tables, each with its columns of labels.

    Returns:
        Of several columns, single labels if one class is 1 in every row, else several labels. Of one column, several
        labels for lists and names joined by "|", numbers to predict if all are numbers and one is no integer, else
        single labels.
    """
    if len(tables[0][1]) > 1:
        return kind_of_columns(_binary_cells(table, columns) for table, columns in tables)
    values = [value for table, (column,) in tables for value in table.values(column) if value is not None]
    if any(isinstance(value, list) or (isinstance(value, str) and _is_joined(value)) for value in values):
        return "multi_label"
    numbers = [_number(value) for value in values]
    known = [number for number in numbers if number is not None]
    fractional = len(known) == len(numbers) and not all(number.is_integer() for number in known)
    return "regression" if fractional else "single_label"


def read_label(row: Row, columns: tuple[str, ...], kind: KindName, faults: list[str]) -> Label | None:
    """Return the label of a row.

    Args:
        row: The row.
        columns: Its columns of labels.
        kind: Kind of the label.
        faults: Receives a text for a label that cannot be read.

    Returns:
        The name of a class, names of classes, or a number; None for a label that cannot be read.
    """
    if len(columns) > 1:
        return _read_binary(row, columns, kind, faults)
    if columns[0] not in row.cells:
        faults.append(f"{row.place}: no label: {columns[0]} is missing")
        return None
    value = row.cells[columns[0]]
    read = {"single_label": _class_of, "multi_label": _classes_of, "regression": _finite_number}[kind]
    label = read(value)
    if label is None and value is None:
        faults.append(f"{row.place}: no label: the column {columns[0]} is empty")
    elif label is None:
        wanted = {
            "single_label": "give one class, or, for several, --label-kind multi_label",
            "multi_label": f"give names of classes joined by {_SEPARATOR}, or a JSON list of them",
            "regression": "give a finite number",
        }[kind]
        faults.append(f"{row.place}: {columns[0]} is {value!r}; {wanted}")
    return label


def refuse_indicators(tables: Sequence[tuple[Table, tuple[str, ...]]]) -> None:
    """Refuse lists such as [1, 0, 0], which have 0 or 1 for each class and name none.

    Args:
        tables: The tables, each with its column of several labels.

    Raises:
        DataError: All lists have 0 and 1 alone and one length, and one has a value twice, or two have another order, as
            no lists of classes have.
    """
    found = [
        (table, column, parts)
        for table, (column,) in tables
        for value in table.values(column)
        if (parts := _parts_of(value))
    ]
    lists = [[binary_value(part) for part in parts] for _, _, parts in found]
    is_binary = not any(None in values for values in lists) and len(set(map(len, lists))) == 1
    repeats = any(len(set(values)) < len(values) for values in lists)
    is_ordered = is_binary and len({tuple(values) for values in lists if len(values) > 1}) > 1  # as no set of names is
    if is_binary and (repeats or is_ordered):
        table, column, parts = found[0]
        raise DataError(
            f"{table.path}: the column {column} holds {parts} and the like, 0 or 1 for each class; write a column for "
            "each class, or the names of the classes of an image"
        )


def classes_of(labels: Sequence[Any], columns: tuple[str, ...], kind: KindName) -> tuple[str, ...]:
    """Return the names of the classes.

    Args:
        labels: All labels, of `read_label`.
        columns: Columns of labels.
        kind: Kind of the labels.

    Returns:
        The columns, where there are several; the names in alphabetical order, integers in their own; or the name of the
        column of a number.
    """
    if len(columns) > 1 or kind == "regression":
        return columns
    names = set(labels) if kind == "single_label" else {name for found in labels for name in found}
    are_numbers = all(re.fullmatch(r"-?\d{1,18}", name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name)) if are_numbers else sorted(names))


def encode_labels(labels: Sequence[Any], classes: tuple[str, ...], kind: KindName) -> NDArray[Any]:
    """Return labels as an array.

    Args:
        labels: Labels of images, of `read_label`.
        classes: Names of the classes.
        kind: Kind of the labels.

    Returns:
        int64 (n,) of single labels, float32 (n, classes) of several, float64 (n,) of numbers.
    """
    if kind == "regression":
        return np.array(labels, dtype=np.float64)
    index = {name: label for label, name in enumerate(classes)}
    if kind == "single_label":
        return np.array([index[name] for name in labels], dtype=np.int64)
    encoded = np.zeros((len(labels), len(classes)), dtype=np.float32)
    for row, names in enumerate(labels):
        encoded[row, [index[name] for name in names]] = 1
    return encoded


def require_variety(labels: Sequence[Any], source: str) -> None:
    """Refuse training labels that are all the same.

    Args:
        labels: Labels of the training images.
        source: Name of the tables.

    Raises:
        DataError: There is nothing to learn.
    """
    if len(set(labels)) == 1:
        text = comma_list(labels[0]) or "no class" if isinstance(labels[0], tuple) else str(labels[0])
        raise DataError(f"all training images of {source} have the label {text}, so there is nothing to learn")


def binary_value(value: Any) -> bool | None:
    """Return the value of a cell that is 0 or 1, or None for any other cell."""
    return _BINARY.get(plain_number(str(value)).casefold())


def plain_number(text: str) -> str:
    """Return an integer that was written as a float, such as "3.0", as "3", and other text as it is."""
    return re.sub(r"\.0+", "", text) if re.fullmatch(r"-?\d+\.0+", text) else text


def _is_joined(text: str) -> bool:
    return _SEPARATOR in text or (text.startswith("[") and text.endswith("]"))


def _class_of(value: Any) -> str | None:
    if value is None or isinstance(value, list | dict):
        return None
    return plain_number(unicodedata.normalize("NFC", str(value)))


def _classes_of(value: Any) -> tuple[str, ...] | None:
    """Return the names of a list or text; an empty cell has none."""
    parts = _parts_of(value)
    names = [None] if parts is None else list(map(_class_of, parts))
    return None if None in names else tuple(sorted({name for name in names if name}))


def _parts_of(value: Any) -> list[Any] | None:
    """Return the values of a list or text, none of an empty cell; None for what is neither."""
    if isinstance(value, dict):
        return None
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    parts = value if isinstance(value, list) else [] if value is None else str(value).split(_SEPARATOR)
    return [part.strip() if isinstance(part, str) else part for part in parts]


def _number(value: Any) -> float | None:
    try:
        # Python reads "1_5" as 15, in a table it is a name.
        is_other = isinstance(value, bool | list | dict) or value is None or "_" in str(value)
        return None if is_other else float(value)
    except (ValueError, OverflowError):  # an integer of hundreds of digits
        return None


def _finite_number(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and math.isfinite(number) else None


def _binary_cells(table: Table, columns: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return which cells are 1 (rows, columns)."""
    cells = [[bool(binary_value(row.cells.get(column))) for column in columns] for row in table.rows]
    return np.array(cells, np.bool_).reshape(-1, len(columns))


def _read_binary(row: Row, columns: tuple[str, ...], kind: KindName, faults: list[str]) -> Label | None:
    values = {column: binary_value(row.cells.get(column)) for column in columns}
    faulty = [column for column, value in values.items() if value is None]
    for column in faulty:
        faults.append(f"{row.place}: {column} is {row.cells.get(column)!r}; give 0 or 1")
    names = tuple(column for column, value in values.items() if value)
    if faulty:
        return None
    if kind != "single_label":
        return names
    if len(names) != 1:
        faults.append(
            f"{row.place}: {len(names)} classes are 1; give one, or read several with --label-kind multi_label"
        )
        return None
    return names[0]
