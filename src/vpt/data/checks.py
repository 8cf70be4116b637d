"""Checks of the classes of a dataset and of its splits, for every folder layout."""

import difflib
import hashlib
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path

from vpt.core.text import bullets, comma_list, describe_counts, pluralize
from vpt.data.dataset import Dataset
from vpt.errors import DataError


def check_classes(root: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Check that train has at least two classes and every class of the other splits.

    Args:
        root: The data folder, for the error message.
        counts: Split ("train", "val", "test") to class name to number of images.

    Raises:
        DataError: A class is missing from train, or train has only one class.
    """
    train = counts["train"]
    for split_name, split_counts in counts.items():
        unknown = {name: count for name, count in split_counts.items() if name not in train}
        if unknown:
            texts = zip(unknown, describe_counts(unknown), strict=True)
            described = bullets([text + _similar_name_hint(name, train) for name, text in texts])
            raise DataError(
                f"{root}: {pluralize(len(unknown), 'class')} of {split_name} without any image in train:{described}\n"
                f"put some of these images into train, remove the class from {split_name}, or correct its name"
            )
    if len(train) == 1:
        (only_class,) = describe_counts(train)
        raise DataError(
            f"{root} has only one class, {only_class}; a classifier needs at least two: add one folder per class. "
            "If that folder is itself a dataset, give its path"
        )


def class_notes(dataset: Dataset) -> tuple[str, ...]:
    """Return notes about classes that train or a non-empty test split does not contain.

    Args:
        dataset: The dataset.

    Returns:
        One note per split with missing classes.
    """
    consequences = {
        "train": "learned only if train and val are used together",
        "test": "the test accuracy does not cover it",
    }
    notes = []
    for split_name, consequence in consequences.items():
        split = dataset.splits[split_name]
        missing = [repr(dataset.classes[k]) for k in (split.class_counts(len(dataset.classes)) == 0).nonzero()[0]]
        if len(split) and missing:
            classes = f"{pluralize(len(missing), 'class')}: {comma_list(missing)}"
            notes.append(f"{split_name} has no image of {classes}; {consequence}")
    return tuple(notes)


def _similar_name_hint(name: str, known: Mapping[str, int]) -> str:
    casefolded = {other.casefold(): other for other in known}
    matches = difflib.get_close_matches(name.casefold(), casefolded, n=1, cutoff=0.8)
    return f"; train has {casefolded[matches[0]]!r}" if matches else ""


def leakage_notes(dataset: Dataset) -> tuple[str, ...]:
    """Return notes about files with identical bytes in two splits.

    Only image files are compared. Unreadable files are skipped, because decoding reports them.

    Args:
        dataset: The dataset.

    Returns:
        One note per pair of splits that share files.
    """
    same_size: defaultdict[int, list[tuple[str, str, Path]]] = defaultdict(list)  # split, name, path
    for split_name, split in dataset.splits.items():
        for name, path in zip(split.names, split.images, strict=True):
            with suppress(OSError):  # decoding reports unreadable files
                if isinstance(path, Path) and path.is_file():  # reading a pipe would block
                    same_size[path.stat().st_size].append((split_name, name, path))
    same_size.pop(0, None)

    # Only files with the size of a file in another split are read, which are few even in a large dataset.
    same_bytes: defaultdict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for group in same_size.values():
        if len({split_name for split_name, _, _ in group}) > 1:
            for split_name, name, path in group:
                with suppress(OSError), path.open("rb") as file:
                    same_bytes[hashlib.file_digest(file, "sha256").digest()].append((split_name, name))

    pairs: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for found in same_bytes.values():
        first = dict(reversed(found))
        for a, b in combinations(dataset.splits, 2):
            pairs[a, b] += [f"{name} = {first[a]}" for split_name, name in found if split_name == b and a in first]
    return tuple(
        f"{pluralize(len(shared), 'file')} of {b} with the same bytes as a file of {a}, "
        f"so the {b} accuracy may be too high: {comma_list(shared)}"
        for (a, b), shared in pairs.items()
        if shared
    )
