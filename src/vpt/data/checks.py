"""Checks of the classes of a dataset and of its splits, for every folder layout."""

import difflib
import hashlib
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import numpy as np

from vpt.core.text import bullets, comma_list, describe_counts, pluralize
from vpt.data.dataset import Dataset
from vpt.errors import DataError


def check_classes(
    source: object,
    counts: Mapping[str, Mapping[str, int]],
    advice: str = "add one folder per class. If that folder is itself a dataset, give its path",
) -> None:
    """Check that train has at least two classes and every class of the other splits.

    Args:
        source: The data folder, or what lists the images, for the error message.
        counts: Split ("train", "val", "test") to class name to number of images.
        advice: What to do about a single class. Default: advice on folders of classes.

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
                f"{source}: {pluralize(len(unknown), 'class')} of {split_name} without any image in train:{described}\n"
                f"put some of these images into train, remove the class from {split_name}, or correct its name"
            )
    if len(train) == 1:
        (only_class,) = describe_counts(train)
        raise DataError(f"{source} has only one class, {only_class}; a classifier needs at least two: {advice}")


def class_notes(dataset: Dataset) -> tuple[str, ...]:
    """Return notes about classes that train or a non-empty test split does not contain, or whose names are alike.

    Args:
        dataset: The dataset.

    Returns:
        One note per split with missing classes, and one on names that differ in case or spaces alone.
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
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in dataset.classes:
        alike[" ".join(name.casefold().split())].append(repr(name))
    twins = [" and ".join(names) for names in alike.values() if len(names) > 1]
    if twins:
        notes.append(f"classes differ in case or spaces alone: {comma_list(twins)}; if they are the same, rename one")
    return tuple(notes)


def _similar_name_hint(name: str, known: Mapping[str, int]) -> str:
    casefolded = {other.casefold(): other for other in known}
    matches = difflib.get_close_matches(name.casefold(), casefolded, n=1, cutoff=0.8)
    return f"; train has {casefolded[matches[0]]!r}" if matches else ""


def leakage_notes(dataset: Dataset) -> tuple[str, ...]:
    """Return notes about files with identical bytes in two splits, or in two classes.

    Only image files are compared. Unreadable files are skipped, because decoding reports them.

    Args:
        dataset: The dataset.

    Returns:
        One note per pair of splits that share files, and one on files in two classes.
    """
    present = {name: split for name, split in dataset.splits.items() if len(split)}
    if not present:
        return ()
    is_single = dataset.label_kind == "single_label"
    sizes = np.concatenate([np.fromiter(map(_file_size, x.images), np.int64, len(x)) for x in present.values()])
    labels = np.concatenate([x.labels if is_single else np.zeros(len(x), np.int64) for x in present.values()])
    names, starts = list(present), np.cumsum([0, *map(len, present.values())])
    split_of = np.repeat(np.arange(len(names)), np.diff(starts))

    # Only files with the size of a file in another split or class are read, which are few even in a large dataset.
    order = np.argsort(sizes, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1)
    pairs: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    contradictions = []
    for group in sorted(groups, key=lambda group: int(group[0])):
        if sizes[group[0]] <= 0 or len(set(zip(split_of[group].tolist(), labels[group].tolist(), strict=True))) < 2:
            continue
        same_bytes: defaultdict[bytes, list[tuple[str, str, int]]] = defaultdict(list)  # split, name, label
        for position in group:
            name, index = names[split_of[position]], int(position - starts[split_of[position]])
            path = present[name].images[index]
            with suppress(OSError):
                assert isinstance(path, Path)
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").digest()
                same_bytes[digest].append((name, present[name].names[index], int(labels[position])))
        for found in same_bytes.values():
            first = {split_name: name for split_name, name, _ in reversed(found)}
            for a, b in combinations(dataset.splits, 2):
                same = [name for split_name, name, _ in found if split_name == b and a in first]
                pairs[a, b] += [f"{name} = {first[a]}" for name in same]
            by_label = {label: name for _, name, label in reversed(found)}
            if len(by_label) > 1:
                contradictions.append(" = ".join(by_label[label] for label in sorted(by_label)))
    notes = [
        f"{pluralize(len(contradictions), 'file')} with the same bytes in two classes, of which one is wrong: "
        f"{comma_list(contradictions)}"
    ]
    return (*(notes if contradictions else ()), *_leaks(pairs))


def _file_size(image: object) -> int:
    """Return the size of a file; 0 for other images, and for files that decoding reports as unreadable."""
    with suppress(OSError):
        if isinstance(image, Path) and image.is_file():  # reading a pipe would block
            return image.stat().st_size
    return 0


def _leaks(pairs: Mapping[tuple[str, str], list[str]]) -> tuple[str, ...]:
    return tuple(
        f"{pluralize(len(shared), 'file')} of {b} with the same bytes as a file of {a}, "
        f"so the {b} accuracy may be too high: {comma_list(shared)}"
        for (a, b), shared in pairs.items()
        if shared
    )
