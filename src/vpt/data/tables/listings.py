"""Images with labels that files list: VTAB's list files, or tables (CSV, JSON Lines, Parquet)."""

import os
from dataclasses import replace
from pathlib import Path

from vpt.data.dataset import Dataset
from vpt.data.folders.walk import exists, is_folder, is_table_name
from vpt.data.label_kinds import KindName
from vpt.data.tables.columns import TableColumns
from vpt.data.tables.files import find_tables, given_tables
from vpt.data.tables.label_tables import read_tables
from vpt.data.tables.list_files import has_list_files, read_list_files


def is_listing(source: str | Path, columns: TableColumns | None = None, *, named: bool = False) -> bool:
    """Return True if the images of a source are listed in files.

    Args:
        source: A folder, or tables such as "train.csv,test.csv".
        columns: Columns of tables that a user gives. Default: recognized.
        named: True takes only tables in a folder whose column of labels is given or has a common name. Default: False.

    Returns:
        True if `read_listing` can read the source.
    """
    root = Path(str(source))
    if is_folder(root):
        return has_list_files(root) or bool(find_tables(root, columns or TableColumns(), named=named))
    return bool(given_tables(source))


def read_listing(source: str | Path, columns: TableColumns | None = None, *, complete: bool = True) -> Dataset:
    """Read a folder with lists or tables, or the tables themselves. No image is opened. Faults raise DataError.

    Args:
        source: A folder, or tables such as "train.csv,test.csv".
        columns: Columns of tables that a user gives. Default: recognized.
        complete: False also reads tables without a training split. Default: True.

    Returns:
        The dataset. A split without images is empty.
    """
    root, columns = Path(str(source)), columns or TableColumns()
    if is_folder(root):
        if has_list_files(root):
            return read_list_files(root)
        return read_tables(find_tables(root, columns), root, columns, complete=complete)
    tables = given_tables(source)
    folders = {path.parent for path in tables}
    if len(folders) > 1:
        tables = [path.absolute() for path in tables]
    root = folders.pop() if len(folders) == 1 else Path(os.path.commonpath([path.parent for path in tables]))
    dataset = read_tables(tables, root, columns, complete=complete)
    return replace(dataset, name=name_of_source(source))


def name_of_source(source: str | Path) -> str:
    """Return a short name of data: that of the folder, or of a single table without its ending.

    Args:
        source: A folder, tables, or the name of a built-in task.

    Returns:
        The name; "" for the current folder.
    """
    root = Path(str(source))
    if not is_table_name(root.name):
        return root.name
    return root.parent.resolve().name if "," in str(source) and not exists(root) else root.stem


def kind_of_source(source: str | Path | Dataset, columns: TableColumns) -> KindName:
    """Return the kind of the labels of data. Of folders of classes, nothing is read.

    Args:
        source: A folder, tables, the name of a built-in task, or a dataset in memory.
        columns: Columns of tables that a user gives.

    Returns:
        The kind.
    """
    if isinstance(source, Dataset):
        return source.label_kind
    if columns.label_kind is not None or not is_listing(source, columns):
        return columns.label_kind or "single_label"
    return read_listing(source, columns, complete=False).label_kind


def tables_in(folder: Path) -> list[Path]:
    """Return the tables of labels that a folder is read by.

    Args:
        folder: The folder.

    Returns:
        The files; none for a folder without tables, or what is no folder.
    """
    return find_tables(folder, TableColumns()) if is_folder(folder) and not has_list_files(folder) else []


def listed_files(source: str | Path, columns: TableColumns) -> list[Path]:
    """Return the tables of a source, and the images that they list outside of its folder.

    Args:
        source: A folder, or tables such as "train.csv,test.csv".
        columns: Columns that a user gives.

    Returns:
        The files; none for a source without tables.
    """
    root = Path(str(source))
    in_folder = is_folder(root)
    tables = find_tables(root, columns) if in_folder and not has_list_files(root) else given_tables(source)
    if not tables:
        return []
    dataset = read_listing(source, columns, complete=False)
    images = [path for split in dataset.splits.values() for path in split.paths]
    return [*tables, *(path for path in images if not (in_folder and path.is_relative_to(root)))]
