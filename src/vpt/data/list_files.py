"""List files as published for VTAB-1k: `train800.txt`, `val200.txt`, `test.txt`.

A line is `relative/path label`. The label follows the last space, so paths may contain spaces. The numbers in the file
names are arbitrary and optional.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np

from vpt.core.text import bullets, comma_list, pluralize
from vpt.data.classes import check_classes
from vpt.data.dataset import Dataset, Split
from vpt.errors import DataError

_LIST_PATTERNS = {
    "train": re.compile(r"train\d*\.txt", re.IGNORECASE),
    "val": re.compile(r"val\d*\.txt", re.IGNORECASE),
    "trainval": re.compile(r"train\d*val\d*\.txt", re.IGNORECASE),
    "test": re.compile(r"test\d*\.txt", re.IGNORECASE),
}
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True)
class _Entry:
    path: str
    label: int
    location: str  # "test.txt line 3"


def has_list_files(root: Path) -> bool:
    """Return True if a folder contains a list of training images.

    Args:
        root: The data folder.

    Returns:
        True if `read_list_files` can read the folder.
    """
    found = _find_list_files(root)
    return bool(found["train"] or found["trainval"])


def read_list_files(root: Path) -> Dataset:
    """Read the lists of a folder.

    `train800val200.txt` is train if there is no other list, else the rest of the listed split. A class has the name
    of its folder if every label has exactly one folder, else its number. Lists with numbers in their names are
    published lists, for which a class without training images is a note, not an error.

    Args:
        root: The data folder.

    Returns:
        The dataset. val and test are empty if they have no list.

    Raises:
        DataError: A list is faulty. The message names the faulty lines of all lists.
    """
    files = {}
    for split_name, found in _find_list_files(root).items():
        if len(found) > 1:
            raise DataError(f"{root} holds {comma_list(found)}; keep one list for {split_name}")
        if found:
            files[split_name] = found[0]
    faults: list[str] = []
    entries = {split_name: _parse_list(root, name, faults) for split_name, name in files.items()}
    _check_labels_agree(entries, faults)
    if faults:
        raise DataError(
            f"{root}: {pluralize(len(faults), 'fault')} in {', '.join(files.values())}; a line is "
            f"'relative/path label', the label an integer from 0:{bullets(faults)}"
        )
    splits = _assign_splits(root, files, entries)
    all_entries = [entry for split_entries in splits.values() for entry in split_entries]
    classes, from_folders = _class_names(root, all_entries)
    counts: dict[str, defaultdict[str, int]] = {}
    for split_name, split_entries in splits.items():
        # In published lists, a rare class may be in val only; it is learned from train and val together.
        split_counts = counts.setdefault("train" if split_name == "val" else split_name, defaultdict(int))
        for entry in split_entries:
            split_counts[classes[entry.label]] += 1
    if not any(map(_DIGIT.search, files.values())):  # 1,000 images of a benchmark may not cover all classes
        check_classes(root, counts)
    return Dataset(
        name=root.resolve().name,
        classes=classes,
        train=_split(root, splits["train"]),
        val=_split(root, splits["val"]),
        test=_split(root, splits["test"]),
        source=f"lists {', '.join(files.values())} in {root}",
        notes=()
        if from_folders
        else ("classes are named by number, because the folders of the images do not name them",),
    )


def _find_list_files(root: Path) -> dict[str, list[str]]:
    names = sorted(entry.name for entry in root.iterdir() if entry.is_file())
    return {
        split_name: [name for name in names if pattern.fullmatch(name)]
        for split_name, pattern in _LIST_PATTERNS.items()
    }


def _parse_list(root: Path, name: str, faults: list[str]) -> list[_Entry]:
    """Return the valid lines of one list, and add the others to `faults`."""
    try:
        text = (root / name).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        faults.append(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8")
        return []
    except OSError as error:
        faults.append(f"{name} cannot be read: {error.strerror}")
        return []
    entries: dict[str, _Entry] = {}
    for i, line in enumerate(text.split("\n"), start=1):  # not splitlines: file names may contain U+2028
        if not line.strip():
            continue
        location = f"{name} line {i}"
        fields = line.rsplit(None, 1)
        if len(fields) < 2:
            faults.append(f"{location}: no label: {line.strip()!r}")
            continue
        path, label = posixpath.normpath(fields[0]), fields[1]
        if not re.fullmatch(r"[0-9]+", label):
            kind = "a negative label" if re.fullmatch(r"-[0-9]+", label) else "not an integer"
            faults.append(f"{location}: {kind}: {label!r} after {path!r}")
        elif path in entries:
            earlier = entries[path]
            with_label = f", with label {earlier.label} there and {int(label)} here" * (earlier.label != int(label))
            faults.append(f"{location}: {path!r} is already in line {earlier.location.rsplit()[-1]}{with_label}")
        else:
            entries[path] = _Entry(path, int(label), location)
            if not os.path.lexists(root / path):
                faults.append(f"{location}: no such image: {path!r}")
    if not entries and not faults:
        faults.append(f"{name} is empty")
    return list(entries.values())


def _check_labels_agree(entries: dict[str, list[_Entry]], faults: list[str]) -> None:
    first: dict[str, _Entry] = {}
    for entry in (entry for split_entries in entries.values() for entry in split_entries):
        earlier = first.setdefault(entry.path, entry)
        if earlier.label != entry.label:
            faults.append(
                f"{entry.location}: {entry.path!r} has label {entry.label}, but {earlier.label} in {earlier.location}"
            )


def _assign_splits(root: Path, files: dict[str, str], entries: dict[str, list[_Entry]]) -> dict[str, list[_Entry]]:
    """Return train, val and test from the lists that exist."""
    train, val, trainval = (entries.get(split_name, []) for split_name in ("train", "val", "trainval"))
    paths = {split_name: {entry.path for entry in split_entries} for split_name, split_entries in entries.items()}
    if trainval:
        extra = sorted((paths.get("train", set()) | paths.get("val", set())) - paths["trainval"])
        if train and val:
            extra += sorted(paths["trainval"] - paths["train"] - paths["val"])
        if extra:
            names = " + ".join(files[split_name] for split_name in ("train", "val") if split_name in files)
            raise DataError(
                f"{root}: {files['trainval']} does not agree with {names} on "
                f"{pluralize(len(extra), 'image')}: {comma_list(extra)}; correct the lists, or delete that one"
            )
        train = train or [entry for entry in trainval if entry.path not in paths.get("val", ())]
        val = val or [entry for entry in trainval if entry.path not in {e.path for e in train}]
    return {"train": train, "val": val, "test": entries.get("test", [])}


def _class_names(root: Path, entries: list[_Entry]) -> tuple[tuple[str, ...], bool]:
    """Return the class names, and True if the folders determine them. An unused label raises DataError."""
    folders: defaultdict[int, set[str]] = defaultdict(set)
    for entry in entries:
        folders[entry.label].add(PurePosixPath(entry.path).parent.name)
    max_label = max(folders)
    if len(folders) <= max_label:
        unused = [str(label) for label in islice((k for k in range(max_label) if k not in folders), 6)]
        shown = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
        if min(folders) == 1 and len(folders) == max_label:
            hint = "The labels start at 1: subtract 1 from each"
        else:
            hint = "Number the classes from 0 without gaps, or add images of the missing labels"
        raise DataError(
            f"{root}: the largest label is {max_label}, which means {pluralize(max_label + 1, 'class')}, but the lists "
            f"use {pluralize(len(folders), 'label')}; without any image: {shown}. {hint}"
        )
    names = tuple(sorted(folders[label])[0] for label in range(max_label + 1))
    one_folder_each = all(len(found) == 1 for found in folders.values()) and len(set(names)) == len(names)
    if one_folder_each and all(names):
        return names, True
    return tuple(map(str, range(max_label + 1))), False


def _split(root: Path, entries: list[_Entry]) -> Split:
    return Split(
        images=tuple(root / entry.path for entry in entries),
        labels=np.array([entry.label for entry in entries], dtype=np.int64),
        names=tuple(entry.path for entry in entries),
    )
