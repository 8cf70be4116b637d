"""List files as published for VTAB-1k: `train800.txt`, `val200.txt`, `test.txt`.

A line is `relative/path label`. The label follows the last space, so paths may contain spaces. The numbers in the file
names are arbitrary and optional.
"""

import os
import posixpath
import re
from collections import Counter, defaultdict
from itertools import chain, islice
from pathlib import Path, PurePosixPath

from vpt.core.input_files import OUTSIDE_ADVICE, lies_outside
from vpt.core.text import comma_list, pluralize, refuse
from vpt.data.checks import check_classes
from vpt.data.dataset import Dataset, Split
from vpt.data.tables.entries import Entry, check_labels_agree, unique_entries
from vpt.errors import DataError

_MAX_DIGITS = 18  # NumPy's integers have 63 bits
_LIST_NAME = re.compile(r"(train\d*(?:val)?|val|test)\d*\.txt", re.IGNORECASE)


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
    check_labels_agree(chain.from_iterable(entries.values()), faults)
    listing = ", ".join(files.values())
    expected = "a line is 'relative/path label', the label an integer from 0"
    refuse(faults, f"{root}: {pluralize(len(faults), 'fault')} in {listing}; {expected}")
    splits = _assign_splits(root, files, entries)
    classes, from_folders = _class_names(root, [*splits["train"], *splits["val"], *splits["test"]])
    if not re.search(r"\d", listing):  # 1,000 images of a benchmark may not cover all classes
        # A rare class may be in val only; it is learned from train and val together.
        listed = {"train": splits["train"] + splits["val"], "test": splits["test"]}
        check_classes(root, {name: Counter(classes[e.label] for e in found) for name, found in listed.items()})
    note = "classes are named by number, because the folders of the images do not name them"
    train, val, test = (
        Split.of_files(root, [entry.path for entry in splits[name]], [entry.label for entry in splits[name]])
        for name in ("train", "val", "test")
    )
    notes = () if from_folders else (note,)
    return Dataset(root.resolve().name, classes, train, val, test, f"lists {listing} in {root}", notes)


def _find_list_files(root: Path) -> dict[str, list[str]]:
    """Return "train", "val", "trainval" and "test" to the names of lists."""
    names = sorted(entry.name for entry in root.iterdir() if entry.is_file())
    found: dict[str, list[str]] = {"train": [], "val": [], "trainval": [], "test": []}
    for match in filter(None, map(_LIST_NAME.fullmatch, names)):
        found[re.sub(r"\d", "", match[1]).lower()].append(match[0])
    return found


def _parse_list(root: Path, name: str, faults: list[str]) -> list[Entry[int]]:
    """Return the valid lines of one list, and add the others to `faults`."""
    try:
        text = (root / name).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        faults.append(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8")
        return []
    except OSError as error:
        faults.append(f"{name} cannot be read: {error.strerror}")
        return []
    entries: list[Entry[int]] = []
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
        elif lies_outside(root / path, root):
            faults.append(f"{location}: {path!r} lies outside the folder; {OUTSIDE_ADVICE}")
        elif len(label) > _MAX_DIGITS:
            faults.append(f"{location}: a label of {len(label):,} digits after {path!r}")
        else:
            entries.append(Entry(path, int(label), location))
    if not entries and not faults:
        faults.append(f"{name} is empty")
    unique = unique_entries(entries, faults)
    missing = (entry for entry in unique if not os.path.lexists(root / entry.path))
    faults += [f"{entry.location}: no such image: {entry.path!r}" for entry in missing]
    return unique


def _assign_splits(
    root: Path, files: dict[str, str], entries: dict[str, list[Entry[int]]]
) -> dict[str, list[Entry[int]]]:
    """Return train, val and test from the lists that exist."""
    train, val, trainval = (entries.get(split_name, []) for split_name in ("train", "val", "trainval"))
    if trainval:
        in_train, in_val, in_both = ({entry.path for entry in found} for found in (train, val, trainval))
        extra = sorted((in_train | in_val) - in_both)
        if train and val:
            extra += sorted(in_both - in_train - in_val)
        if extra:
            names = " + ".join(files[split_name] for split_name in ("train", "val") if split_name in files)
            raise DataError(
                f"{root}: {files['trainval']} does not agree with {names} on "
                f"{pluralize(len(extra), 'image')}: {comma_list(extra)}; correct the lists, or delete that one"
            )
        rest = [entry for entry in trainval if entry.path not in in_train | in_val]
        train, val = train or rest, val or (rest if train else [])
    return {"train": train, "val": val, "test": entries.get("test", [])}


def _class_names(root: Path, entries: list[Entry[int]]) -> tuple[tuple[str, ...], bool]:
    """Return the class names, and True if the folders determine them. An unused label raises DataError."""
    folders: defaultdict[int, set[str]] = defaultdict(set)
    for entry in entries:
        folders[entry.label].add(PurePosixPath(entry.path).parent.name)
    num_classes = max(folders) + 1
    if len(folders) < num_classes:
        unused = [str(label) for label in islice((k for k in range(num_classes) if k not in folders), 6)]
        shown = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
        hint = (
            "The labels start at 1: subtract 1 from each"
            if min(folders) == 1 and len(folders) == num_classes - 1
            else "Number the classes from 0 without gaps, or add images of the missing labels"
        )
        raise DataError(
            f"{root}: the largest label is {num_classes - 1}, which means {pluralize(num_classes, 'class')}, but the "
            f"lists use {pluralize(len(folders), 'label')}; without any image: {shown}. {hint}"
        )
    names = [name for label in range(num_classes) for name in folders[label]]
    if len(names) == len(set(names)) == num_classes and all(names):  # one folder for each class
        return tuple(names), True
    return tuple(map(str, range(num_classes))), False
