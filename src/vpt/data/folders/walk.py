"""The files of a data folder, by the same rules for training, evaluation and prediction.

Hidden files and folders are passed over: names that begin with a dot (AppleDouble `._x`, `.ipynb_checkpoints`), and
those that archives and file servers leave, such as `__MACOSX`.
"""

import errno
import hashlib
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NoReturn

from vpt.core.foreign_files import describe_foreign_name
from vpt.data.images.file_paths import FilePaths
from vpt.data.images.files import IMAGE_SUFFIXES
from vpt.errors import DataError

_SYSTEM_FILES = frozenset(
    ("thumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information")
)
TABLE_SUFFIXES = frozenset((".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"))


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder. A text too long for a path, such as a list of many tables, is none.

    Args:
        path: The path.

    Returns:
        True or False.
    """
    return exists(path) and path.is_dir()


def require_path(text: str, name: str, advice: str) -> None:
    """Refuse an empty text, which as a path is the current folder.

    Args:
        text: The text of a path.
        name: What it names, such as "the data source".
        advice: What to give.

    Raises:
        DataError: The text is empty or blank.
    """
    if not text.strip():
        raise DataError(f"{name} is {text!r}; {advice}; `.` is the current folder")


def exists(path: Path) -> bool:
    """Return whether there is a file or folder. A text too long for a path stands for none.

    Args:
        path: The path.

    Returns:
        True or False.
    """
    try:
        return path.exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def is_run_directory(folder: Path) -> bool:
    """Return True for a run directory of `vpt tune`, whose plots are not training images.

    Args:
        folder: The folder to check.

    Returns:
        True if the folder is a run directory.
    """
    return folder.suffix == ".run" and (folder / "job.json").is_file()


def is_image_name(name: str) -> bool:
    """Return True if a file name has the suffix of an image.

    Args:
        name: The name.

    Returns:
        True for an image.
    """
    return Path(name).suffix.casefold() in IMAGE_SUFFIXES


def is_table_name(name: str) -> bool:
    """Return True if a file name has the suffix of a table.

    Args:
        name: The name.

    Returns:
        True for CSV, JSON Lines and Parquet files.
    """
    return Path(name).suffix.casefold() in TABLE_SUFFIXES


def visible_entries(folder: Path) -> list[Path]:
    """Return the entries of a folder that are not hidden, sorted. An unreadable folder raises DataError.

    Args:
        folder: The folder.

    Returns:
        Files and folders.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not _is_hidden(entry.name))
    except OSError as error:
        _raise_unreadable(error)


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder that are no run directories, sorted.

    Args:
        folder: The folder.

    Returns:
        The folders.
    """
    return [entry for entry in visible_entries(folder) if entry.is_dir() and not is_run_directory(entry)]


def image_entries(folder: Path) -> list[Path]:
    """Return the images directly in a folder, sorted.

    Args:
        folder: The folder.

    Returns:
        The files.
    """
    return [entry for entry in visible_entries(folder) if is_image_name(entry.name) and not entry.is_dir()]


def walk_images(folder: Path, ignored: list[str] | None = None, root: Path | None = None) -> FilePaths:
    """Return all images below a folder, sorted. Each folder is visited once, so that loops of links end.

    An unreadable folder raises DataError.

    Args:
        folder: The folder.
        ignored: Receives the path of each other file, and of each folder that is passed over. Default: none.
        root: Folder that these paths are relative to. Default: `folder`.

    Returns:
        The files.
    """
    root, ignored = root or folder, [] if ignored is None else ignored
    images: list[str] = []
    seen: set[tuple[int, int]] = set()
    for current, folders, names in os.walk(folder, followlinks=True, onerror=_raise_unreadable):
        here = Path(current)
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen:
            ignored.append(f"{here.relative_to(root)}/ (a link to a folder already read)")
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        runs = [name for name in folders if is_run_directory(here / name)]
        ignored += [f"{(here / name).relative_to(root)}/ (written by vpt tune)" for name in runs]
        folders[:] = sorted(name for name in folders if not _is_hidden(name) and name not in runs)
        prefix = "" if here == folder else f"{here.relative_to(folder).as_posix()}/"
        for name in names:
            if is_image_name(name) and not _is_hidden(name):
                images.append(prefix + name)
            elif not _is_hidden(name):
                ignored.append(str((here / name).relative_to(root)))
    # In the order of Path objects, which compare folder by folder: no character comes before the one that parts them.
    images.sort(key=lambda name: os.path.normcase(name).replace(os.sep, "\0"))
    return FilePaths(folder, tuple(images))


def describe_foreign(ignored: Sequence[str]) -> str:
    """Return what to do with files of known kinds that are not read, such as videos.

    Args:
        ignored: Files that are no images by their names.

    Returns:
        The end of a message, which names one file of each kind; "" without any.
    """
    first: dict[str, str] = {}
    for name in ignored:
        if (kind := describe_foreign_name(name)) is not None:
            first.setdefault(kind, name)
    return "".join(f"; {name} is {kind}" for kind, name in first.items())


def stamp_files(root: Path, others: Sequence[Path] = ()) -> str:
    """Return a hash of the names, sizes and times of change of the files that a dataset is read from.

    Args:
        root: The folder of the dataset, or a tar file. Of another path, nothing is read.
        others: Other files of the dataset. Default: none.

    Returns:
        The hash, or "" if there are no files.
    """
    files, images = list(others), FilePaths(root, ())
    if root.suffix == ".tar" and root.is_file():
        files.append(root)
    first = len(files)
    if root.is_dir():
        images = walk_images(root)
        files += sorted((*root.glob("[!.]*.tar"), *root.glob("[!.]*/[!.]*.tar")))
        files += (entry for entry in visible_entries(root) if entry.suffix.casefold() in (".txt", *TABLE_SUFFIXES))
    if not files and not images:
        return ""
    digest = hashlib.sha256()
    for path in chain(files[:first], images, files[first:]):
        try:
            status = path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:  # decoding reports the fault
            state = "unreadable"
        name = path.relative_to(root) if path.is_relative_to(root) else path
        digest.update(f"{name}\0{state}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _SYSTEM_FILES


def _raise_unreadable(error: OSError) -> NoReturn:
    raise DataError(f"the folder {error.filename} cannot be read: {error.strerror}; correct its permissions")
