"""List files as the VTAB-1k community ships them: `train800.txt`, `val200.txt`, `test.txt`.

A line is `relative/path label`; the label follows the last blank, so paths may hold blanks. The numbers in
the file names may be any, or none: `train.txt` with `test.txt` will do.
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

from vpt.core.text import lines, listed, number
from vpt.data.classes import check_classes
from vpt.data.dataset import Dataset, Split
from vpt.errors import DataError

_LISTS = {
    "train": re.compile(r"train\d*\.txt", re.IGNORECASE),
    "val": re.compile(r"val\d*\.txt", re.IGNORECASE),
    "trainval": re.compile(r"train\d*val\d*\.txt", re.IGNORECASE),
    "test": re.compile(r"test\d*\.txt", re.IGNORECASE),
}
_NUMBERED = re.compile(r"\d")


@dataclass(frozen=True)
class _Entry:
    path: str
    label: int
    where: str  # "test.txt line 3"


def has_lists(root: Path) -> bool:
    """Whether `root` holds a list of training images."""
    found = _find(root)
    return bool(found["train"] or found["trainval"])


def read_lists(root: Path) -> Dataset:
    """Read the lists in `root`; val and test are empty where there is no list for them.

    `train800val200.txt` stands for train where there is no other list, else for what the other one lacks.
    A class is called after its folder if each label has one folder to itself, else by its number.
    Lists with numbers in their names are published ones: a class that test alone has is noted there, not refused.
    Raises DataError that names every faulty line of all the lists.
    """
    files = {}
    for part, found in _find(root).items():
        if len(found) > 1:
            raise DataError(f"{root} holds {listed(found)}; keep one list for {part}")
        if found:
            files[part] = found[0]
    faults: list[str] = []
    entries = {part: _parse(root, name, faults) for part, name in files.items()}
    _check_labels_agree(entries, faults)
    if faults:
        raise DataError(
            f"{root}: {number(len(faults), 'fault')} in {', '.join(files.values())}; a line is "
            f"'relative/path label', the label a whole number from 0:{lines(faults)}"
        )
    parts = _arrange(root, files, entries)
    used = [entry for part in parts.values() for entry in part]
    classes, named = _class_names(root, used)
    counts: dict[str, defaultdict[str, int]] = {}
    for part, listing in parts.items():
        # A published list may leave a rare class to val alone; it is learned from train and val together.
        tally = counts.setdefault("train" if part == "val" else part, defaultdict(int))
        for entry in listing:
            tally[classes[entry.label]] += 1
    if not any(map(_NUMBERED.search, files.values())):  # 1,000 images of a benchmark may well leave out some classes
        check_classes(root, counts)
    return Dataset(
        name=root.resolve().name,
        classes=classes,
        train=_split(root, parts["train"]),
        val=_split(root, parts["val"]),
        test=_split(root, parts["test"]),
        source=f"lists {', '.join(files.values())} in {root}",
        notes=() if named else ("classes are called by their numbers: the folders of the images do not name them",),
    )


def _find(root: Path) -> dict[str, list[str]]:
    names = sorted(entry.name for entry in root.iterdir() if entry.is_file())
    return {part: [name for name in names if pattern.fullmatch(name)] for part, pattern in _LISTS.items()}


def _parse(root: Path, name: str, faults: list[str]) -> list[_Entry]:
    """The good lines of one list; the others go to `faults`."""
    try:
        text = (root / name).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        faults.append(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8")
        return []
    except OSError as error:
        faults.append(f"{name} cannot be read: {error.strerror}")
        return []
    entries: dict[str, _Entry] = {}
    for i, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand in a file name
        if not line.strip():
            continue
        where = f"{name} line {i}"
        fields = line.rsplit(None, 1)
        if len(fields) < 2:
            faults.append(f"{where}: no label: {line.strip()!r}")
            continue
        path, label = posixpath.normpath(fields[0]), fields[1]
        if not re.fullmatch(r"[0-9]+", label):
            kind = "a negative label" if re.fullmatch(r"-[0-9]+", label) else "not a whole number"
            faults.append(f"{where}: {kind}: {label!r} after {path!r}")
        elif path in entries:
            earlier = entries[path]
            with_label = f", with label {earlier.label} there and {int(label)} here" * (earlier.label != int(label))
            faults.append(f"{where}: {path!r} stands already in line {earlier.where.rsplit()[-1]}{with_label}")
        else:
            entries[path] = _Entry(path, int(label), where)
            if not os.path.lexists(root / path):
                faults.append(f"{where}: no such image: {path!r}")
    if not entries and not faults:
        faults.append(f"{name} is empty")
    return list(entries.values())


def _check_labels_agree(entries: dict[str, list[_Entry]], faults: list[str]) -> None:
    first: dict[str, _Entry] = {}
    for entry in (entry for listing in entries.values() for entry in listing):
        other = first.setdefault(entry.path, entry)
        if other.label != entry.label:
            faults.append(f"{entry.where}: {entry.path!r} has label {entry.label}, but {other.label} in {other.where}")


def _arrange(root: Path, files: dict[str, str], entries: dict[str, list[_Entry]]) -> dict[str, list[_Entry]]:
    """Train, val and test from whichever of the four lists there are."""
    train, val, both = (entries.get(part, []) for part in ("train", "val", "trainval"))
    paths = {part: {entry.path for entry in listing} for part, listing in entries.items()}
    if both:
        extra = sorted((paths.get("train", set()) | paths.get("val", set())) - paths["trainval"])
        if train and val:
            extra += sorted(paths["trainval"] - paths["train"] - paths["val"])
        if extra:
            parts = " + ".join(files[part] for part in ("train", "val") if part in files)
            raise DataError(
                f"{root}: {files['trainval']} does not agree with {parts} on "
                f"{number(len(extra), 'image')}: {listed(extra)}; correct the lists, or delete that one"
            )
        train = train or [entry for entry in both if entry.path not in paths.get("val", ())]
        val = val or [entry for entry in both if entry.path not in {e.path for e in train}]
    return {"train": train, "val": val, "test": entries.get("test", [])}


def _class_names(root: Path, entries: list[_Entry]) -> tuple[tuple[str, ...], bool]:
    """The name of each label, and whether the folders gave it. Raises DataError when a label is not used."""
    folders: defaultdict[int, set[str]] = defaultdict(set)
    for entry in entries:
        folders[entry.label].add(PurePosixPath(entry.path).parent.name)
    top = max(folders)
    if len(folders) <= top:
        unused = [str(label) for label in islice((k for k in range(top) if k not in folders), 6)]
        shown = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
        if min(folders) == 1 and len(folders) == top:
            hint = "The labels start at 1: subtract 1 from each"
        else:
            hint = "Number the classes from 0 without gaps, or bring back the images of the missing labels"
        raise DataError(
            f"{root}: the largest label is {top}, so there should be {number(top + 1, 'class')}, but the "
            f"lists use {number(len(folders), 'label')}; without any image: {shown}. {hint}"
        )
    names = tuple(sorted(folders[label])[0] for label in range(top + 1))
    one_each = all(len(found) == 1 for found in folders.values()) and len(set(names)) == len(names)
    if one_each and all(names):
        return names, True
    return tuple(map(str, range(top + 1))), False


def _split(root: Path, entries: list[_Entry]) -> Split:
    return Split(
        images=tuple(root / entry.path for entry in entries),
        labels=np.array([entry.label for entry in entries], dtype=np.int64),
        names=tuple(entry.path for entry in entries),
    )
