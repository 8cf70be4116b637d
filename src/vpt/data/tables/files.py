"""The tables of labels of a dataset: given by name, or found in a folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vpt.core.text import comma_list, refuse
from vpt.data.folders.class_folders import find_class_names
from vpt.data.folders.names import find_split_names, split_words
from vpt.data.folders.walk import exists, is_table_name, subfolders, visible_entries
from vpt.data.tables.columns import TableColumns, choose_columns, has_labels, lists_images
from vpt.data.tables.rows import Table, read_table
from vpt.errors import DataError, VptError


def given_tables(source: str | Path) -> list[Path]:
    """Return the tables that a text names, such as "labels.csv" or "train.csv,test.csv".

    Args:
        source: The text.

    Returns:
        The files; none if the text names anything else.

    Raises:
        DataError: A part of a text with commas is no table.
    """
    whole = Path(str(source))
    parts = [Path(part.strip()) for part in str(source).split(",")]
    if exists(whole) and whole.is_file():
        return [whole] if is_table_name(whole.name) else []
    if len(parts) == 1 or exists(whole) or not any(is_table_name(part.name) for part in parts):
        return []
    faults = [str(part) for part in parts if not (part.is_file() and is_table_name(part.name))]
    refuse(faults, f"{source!r} names several files, of which these are no tables that exist", "correct their names")
    return parts


def find_tables(root: Path, columns: TableColumns, *, named: bool = False) -> list[Path]:
    """Return the tables of labels of a folder: those directly in it, else those in its folders of splits.

    Args:
        root: The data folder.
        columns: The columns that a user gives.
        named: True takes only tables whose column of labels is given or has a common name. Default: only in a folder of
            class folders, or if there are such tables.

    Returns:
        The files, sorted. Tables without images or without labels are not among them.
    """
    for tables in _tables_of(root):
        found = [table.path for table in tables if has_labels(table, columns, named=True)]
        if not found and not named:
            found = [table.path for table in tables if has_labels(table, columns)]
            found = [] if found and find_class_names(root) else found
        if found:
            return found
    return []


def unread_tables(root: Path) -> list[str]:
    """Return why files in a folder, or in its folders of splits, cannot be read as tables.

    Args:
        root: The data folder.

    Returns:
        A text for each file.
    """
    reasons: list[str] = []
    for _ in _tables_of(root, reasons):
        pass
    return reasons


def explain_unclear(root: Path, columns: TableColumns) -> str:
    """Return why a table of images in a folder cannot be read as one of labels.

    Args:
        root: The data folder.
        columns: The columns that a user gives.

    Returns:
        The reason, or "" if there is no such table.
    """
    for table in _tables_in(root):
        if lists_images(table, columns):
            try:
                choose_columns(table, columns)
            except DataError as error:
                return str(error)
    return next(iter(unread_tables(root)), "")


def _tables_of(root: Path, reasons: list[str] | None = None) -> Iterator[list[Table]]:
    """Iterate over the tables directly in a folder, and those in its folders of splits."""
    yield _tables_in(root, reasons)
    yield [table for folder in subfolders(root) if split_words(folder.name) for table in _tables_in(folder, reasons)]


def _tables_in(folder: Path, reasons: list[str] | None = None) -> list[Table]:
    """Return the first rows of the tables in a folder, and add to `reasons` why others cannot be read."""
    found = []
    for path in visible_entries(folder):
        if is_table_name(path.name) and path.is_file():
            try:
                found.append(read_table(path))
            except VptError as error:  # no table, one of the images themselves, or a Parquet file without pyarrow
                if reasons is not None:
                    reasons.append(str(error))
    return found


def splits_of_files(files: Sequence[Path], root: Path) -> dict[Path, str | None]:
    """Return the split of each file, by its name or that of its folder.

    Args:
        files: The tables.
        root: The data folder.

    Returns:
        File to split; to None for a single file, and where no name is that of a split.

    Raises:
        DataError: Some names are those of splits, and others are not.
    """
    hints = {path: path.stem if split_words(path.stem) or path.parent == root else path.parent.name for path in files}
    if len(files) == 1:
        return {files[0]: None}
    named = find_split_names(list(dict.fromkeys(hints.values())))
    split_of = {hint: split for split, names in named.items() for hint in names}
    unnamed = [path.name for path, hint in hints.items() if hint not in split_of]
    if split_of and unnamed:
        raise DataError(
            f"{root} holds tables of splits ({comma_list([path.name for path in files if path.name not in unnamed])}) "
            f"and others ({comma_list(unnamed)}); give those that are meant, such as "
            f"{','.join(str(path) for path in files if path.name not in unnamed)}"
        )
    return {path: split_of.get(hint) for path, hint in hints.items()}
