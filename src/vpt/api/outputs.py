"""Checks of outputs before any work: they replace nothing that a call reads, and do not join its images."""

import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from vpt.data.folders.walk import image_entries, is_folder, is_image_name, is_table_name
from vpt.data.tables.columns import TableColumns
from vpt.data.tables.listings import listed_files, tables_in
from vpt.errors import SpecError


def require_other_files(written: Sequence[Path], read: Sequence[Any]) -> None:
    """Refuse outputs that replace files that are read.

    Args:
        written: The outputs.
        read: The files; entries that are no paths, such as a loaded model, and paths of nothing are passed over.

    Raises:
        SpecError: An output is one of the files, under whatever name.
    """
    files = [Path(file) for file in read if isinstance(file, str | Path)]
    for path, file in product(written, files):
        if path.exists() and file.exists() and path.samefile(file):
            raise SpecError(f"{path} would be written, and {file} is read from; choose another name")


def require_outside_data(written: Sequence[Path], data: Any, columns: TableColumns | None = None) -> None:
    """Refuse outputs that replace images or tables of labeled data, or that would be read as some later.

    Args:
        written: The outputs.
        data: A folder, tables, or the name of a built-in task; data in memory are passed over.
        columns: Columns of tables that a user gives. Default: recognized.

    Raises:
        SpecError: An output is a file of the data, or lies in a folder of them and has the suffix of an image or table.
        DataError: An image would be replaced, and tables of labels cannot be read.
    """
    if not isinstance(data, str | Path):
        return
    root = Path(data)
    in_folder = is_folder(root)
    require_other_files(written, tables_in(root) if in_folder else str(data).split(","))
    for path in written if in_folder else ():
        if _is_read_in(Path(os.path.realpath(path)), Path(os.path.realpath(root))):
            raise SpecError(f"{path} would be read as a part of {root}; write it to another folder")
    pictures = [path for path in written if is_image_name(path.name) and path.exists()]
    if pictures:  # else the tables need not be read twice
        require_other_files(pictures, listed_files(data, columns or TableColumns()))


def _is_read_in(path: Path, folder: Path) -> bool:
    """Return whether a folder of data has a file of this name read, whether it exists or not."""
    if folder not in path.parents:
        return False
    if is_image_name(path.name):  # pictures beside folders of classes are not read
        return path.parent != folder or any(image.name != path.name for image in image_entries(folder))
    return is_table_name(path.name)
