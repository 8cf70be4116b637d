"""Images with labels as files list them: one entry a line, with its place for messages."""

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

_Label = TypeVar("_Label")


@dataclass(frozen=True)
class Entry(Generic[_Label]):
    """One listed image.

    Args:
        path: The image, relative to the data folder, or absolute where it lies elsewhere.
        label: Number or name of its class, or whatever is to be predicted.
        location: Place in its file, such as "test.txt line 3".
        group: Group of images that belong together, such as a patient; "" for an image on its own.
    """

    path: str
    label: _Label
    location: str
    group: str = ""


def unique_entries(entries: Iterable[Entry[_Label]], faults: list[str]) -> list[Entry[_Label]]:
    """Return the entries without those whose image an earlier one of the same file lists, which are faults.

    Args:
        entries: Entries of one file.
        faults: Receives a text for each repeated image.

    Returns:
        The first entry of each image.
    """
    unique: dict[str, Entry[_Label]] = {}
    for entry in entries:
        earlier = unique.setdefault(entry.path, entry)
        if earlier is not entry:
            differs = earlier.label != entry.label
            with_label = f", with label {earlier.label} there and {entry.label} here" if differs else ""
            place = " ".join(earlier.location.rsplit(None, 2)[-2:])
            faults.append(f"{entry.location}: {entry.path!r} is already in {place}{with_label}")
    return list(unique.values())


def check_labels_agree(entries: Iterable[Entry[_Label]], faults: list[str]) -> None:
    """Add a fault for each image that two files list with different labels.

    Args:
        entries: Entries of all files.
        faults: Receives the faults.
    """
    first: dict[str, Entry[_Label]] = {}
    for entry in entries:
        earlier = first.setdefault(entry.path, entry)
        if earlier.label != entry.label:
            faults.append(
                f"{entry.location}: {entry.path!r} has label {entry.label}, but {earlier.label} in {earlier.location}"
            )


def name_of(path: Path, root: Path) -> str:
    """Return the name of an image: its path below the data folder, or the whole path of one that lies elsewhere.

    Args:
        path: The image.
        root: The data folder.

    Returns:
        The name, with slashes.
    """
    plain = posixpath.normpath(path.as_posix())
    return posixpath.relpath(plain, root.as_posix()) if path.is_relative_to(root) else plain


def group_ids(entries: Sequence[Sequence[Entry[_Label]]]) -> list[list[int]] | None:
    """Number the groups of the images of several splits.

    Args:
        entries: Entries of each split.

    Returns:
        Number of the group of each image, the same in all splits; None if no entry has a group.
    """
    if not any(entry.group for found in entries for entry in found):
        return None
    known: dict[str, int] = {}
    # An image on its own is a group whose name is its path; a tab keeps it apart from the groups of that name.
    return [[known.setdefault(entry.group or f"\t{entry.path}", len(known)) for entry in found] for found in entries]
