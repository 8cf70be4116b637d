"""The image files that a table names, also by paths of another machine."""

import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path
from typing import Literal

from vpt.core.input_files import OUTSIDE_ADVICE, lies_outside
from vpt.core.text import comma_list, pluralize, refuse
from vpt.data.folders.names import split_words
from vpt.data.folders.walk import subfolders, walk_images
from vpt.data.tables.columns import find_image_column
from vpt.data.tables.entries import name_of
from vpt.data.tables.rows import Row, Table, read_table

_NUM_TRIED = 100  # paths that tell where the images are
_FORMS: tuple[Literal["NFC"], Literal["NFD"]] = ("NFC", "NFD")


class ImageFinder:
    """Finder of images by the texts of a table.

    A text is a path from the folder of the table. If no such file exists, all of them are paths from the working folder
    or of another machine, of which the end exists below the folder. A name without a folder is that of a file anywhere
    below the folder, with or without its ending. An accented letter may be one character or two, as macOS stores it.
    """

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        """Look for the folder that the paths begin at.

        Args:
            folder: Folder of the table.
            texts: All texts of the table.
        """
        self.folder = folder
        self._base, self._cut = self._find_base([_parts(text) for text in texts])

    def find(self, text: str, split: str | None = None) -> list[Path]:
        """Return the image of a text.

        Args:
            text: The text.
            split: Split of the image, which a folder may be named after. Default: unknown.

        Returns:
            The image; none if there is no such file, or several that the text may mean.
        """
        parts = _parts(text)
        for path in (_existing(self.folder, text), _existing(self._base, *parts[self._cut :])):
            if path is not None and not path.is_dir():
                return [path]
        found = self._by_name[unicodedata.normalize("NFC", parts[0])] if len(parts) == 1 else []
        of_split = [path for path in found if split in split_words(path.parent.name)]
        return of_split or found

    def _find_base(self, paths: list[tuple[str, ...]]) -> tuple[Path, int]:
        """Return the folder that the paths begin at, and how many of their first parts lead there."""
        tried = [parts for parts in paths[:_NUM_TRIED] if parts]
        if any(_existing(self.folder, *parts) for parts in tried):
            return self.folder, 0
        for base, cut in self._guesses(paths):
            if all(_existing(base, *parts[cut:]) for parts in tried):
                return base, cut
        return self.folder, 0

    def _guesses(self, paths: list[tuple[str, ...]]) -> Iterator[tuple[Path, int]]:
        """Return folders that the paths could begin at. In a subfolder, paths keep one folder at least."""
        shortest = min((len(parts) for parts in paths), default=0)
        if shortest < 2:
            return
        columns = zip(*(parts[:-1] for parts in paths), strict=False)
        shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
        for folder in (self.folder, *subfolders(self.folder)):
            yield folder, 0
            most = len(shared) if folder == self.folder else min(len(shared), shortest - 2)
            for dropped in range(1, most + 1):
                yield folder, dropped

    @cached_property
    def _by_name(self) -> defaultdict[str, list[Path]]:
        """The images below the folder by name, and by name without ending."""
        found: defaultdict[str, list[Path]] = defaultdict(list)
        for path in walk_images(self.folder):
            found[unicodedata.normalize("NFC", path.name)].append(path)
            found[unicodedata.normalize("NFC", path.stem)].append(path)
        return found


def read_table_images(path: Path, image_column: str | None = None) -> list[Path]:
    """Return the images that a table lists, with or without labels. Nothing here imports torch.

    Args:
        path: The table.
        image_column: Column of the paths of images. Default: recognized.

    Returns:
        The files.

    Raises:
        DataError: A line cannot be read, or an image does not exist.
    """
    faults: list[str] = []
    table = read_table(path, faults)
    column = image_column or find_image_column(table)
    finder = ImageFinder(path.parent, texts_of(table, column))
    found = [find_image(finder, row, column, path.parent, None, faults) for row in table.rows]
    refuse(faults, f"{path}: {pluralize(len(faults), 'fault')}", "correct these lines")
    return [image for image in found if image is not None]


def find_image(
    finder: ImageFinder, row: Row, column: str, root: Path, split: str | None, faults: list[str]
) -> Path | None:
    """Return the image of a row, or None with a fault.

    Args:
        finder: The finder of the table.
        row: The row.
        column: Column of the paths of images.
        root: Folder that the image has to lie in.
        split: Split of the image, or None.
        faults: List that a fault is added to.

    Returns:
        The file.
    """
    text = row.cells.get(column)
    if text is None:
        faults.append(f"{row.place}: no image: the column {column} is empty")
        return None
    found = finder.find(str(text), split)
    if len(found) == 1 and lies_outside(found[0], root):
        faults.append(f"{row.place}: {text!r} lies outside the folder {root}; {OUTSIDE_ADVICE}")
    elif len(found) == 1:
        return found[0]
    elif found:
        several = comma_list([name_of(path, finder.folder) for path in found])
        faults.append(f"{row.place}: {text!r} can be {several}; write the path")
    else:
        faults.append(f"{row.place}: no such image: {text!r}")
    return None


def texts_of(table: Table, column: str) -> list[str]:
    """Return the cells of a column that are not empty, as texts.

    Args:
        table: The table.
        column: The column.

    Returns:
        The texts.
    """
    return [str(value) for value in table.values(column) if value is not None]


def _existing(folder: Path, *parts: str) -> Path | None:
    """Return what lies at a path below a folder, whichever way either writes accents, or None."""
    paths = (folder.joinpath(*parts), *(folder.joinpath(*map(partial(unicodedata.normalize, form), parts))
                                        for form in _FORMS))  # fmt: skip
    return next((path for path in paths if os.path.lexists(path)), None)


def _parts(text: str) -> tuple[str, ...]:
    """Return the parts of a path of any system, without its drive."""
    plain = posixpath.normpath(re.sub(r"^[A-Za-z]:", "", text.replace("\\", "/")))
    return tuple(part for part in plain.split("/") if part)
