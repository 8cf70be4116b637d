"""Names of the classes of masks: those of the scheme, of `classes.txt`, or numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vpt.core.text import comma_list, pluralize
from vpt.data.masks.checks import describe_id
from vpt.data.masks.layouts import read_utf8
from vpt.data.masks.schemes import LabelScheme
from vpt.errors import DataError

_FILE = "classes.txt"  # one name a line


@dataclass(frozen=True)
class ClassNames:
    """Names of the classes of masks.

    Args:
        names: The names, in the order of the classes.
        are_counted: True if nothing but the largest id in the masks says how many there are. Default: False.
        notes: Messages for the user that require no action. Default: none.
    """

    names: tuple[str, ...]
    are_counted: bool = False
    notes: tuple[str, ...] = ()


def name_classes(root: Path, scheme: LabelScheme, ids: Sequence[int], reading: str) -> ClassNames:
    """Return the names of the classes: of the scheme, else of `classes.txt`, else the listed ids, else numbers.

    Args:
        root: The data folder.
        scheme: The scheme of the ids.
        ids: The ids of all masks.
        reading: Name of the scheme, for the notes.

    Returns:
        The names.

    Raises:
        DataError: `classes.txt` cannot be read, or misnames classes.
    """
    listed = scheme.classes or tuple(describe_id(k, scheme) for k in scheme.ids or scheme.colors)
    has_file = (root / _FILE).is_file()
    in_file = _read_classes_file(root / _FILE) if has_file and not scheme.classes else ()
    if in_file and len(in_file) == len(listed or in_file):
        return ClassNames(in_file)
    if not listed:
        return ClassNames(_numbered_classes(scheme, ids), are_counted=True)
    note = f"{_FILE} is not used: {pluralize(len(listed), 'class')} by --labels {reading}: {comma_list(listed)}"
    return ClassNames(listed, notes=(note,) if has_file else ())


def colors_of_names(classes: Sequence[str]) -> list[int]:
    """Return the colors that classes of a model are named by, as `describe_id` writes them. Refuse other names.

    Args:
        classes: The names.

    Returns:
        Color of each class, red * 65536 + green * 256 + blue.

    Raises:
        DataError: A name is no color.
    """
    if not all(re.fullmatch(r"#[0-9a-fA-F]{6}", name) for name in classes):
        raise DataError(
            f"labels is colors, and the classes of the model are {comma_list(classes)}, which are no colors; write "
            "NAME=#rrggbb for each class in their order, such as --labels ground=#000000,road=#ff0000"
        )
    return [int(name[1:], 16) for name in classes]


def _read_classes_file(path: Path) -> tuple[str, ...]:
    names = tuple(map(str.strip, read_utf8(path).rstrip().splitlines()))
    if "" in names:
        raise DataError(
            f"{path}: line {names.index('') + 1} is empty; name a class on each line, in the order of their numbers"
        )
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise DataError(f"{path} names {comma_list(duplicates)} more than once; give each class a name of its own")
    return names


def _numbered_classes(scheme: LabelScheme, ids: Sequence[int]) -> tuple[str, ...]:
    """Return numbers as class names, up to the largest id in any mask."""
    known = set(ids) - set(scheme.ignore_ids)
    return tuple(str(k) for k in range(max([1, *(k + 1 - scheme.reduce_zero_label for k in known)])))
