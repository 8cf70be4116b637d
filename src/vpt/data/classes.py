"""What must hold of the classes of a dataset, whatever layout it was read from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from vpt.core.text import bullets, comma_list, describe_counts, pluralize
from vpt.data.dataset import Dataset
from vpt.errors import DataError


def check_classes(root: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Raise DataError unless train has two classes and every class of the other splits.

    counts: split ("train", "val", "test") -> class name -> images.
    """
    train = counts["train"]
    for split_name, split_counts in counts.items():
        unknown = {name: count for name, count in split_counts.items() if name not in train}
        if unknown:
            described = [
                text + _similar_name_hint(name, train)
                for name, text in zip(unknown, describe_counts(unknown), strict=True)
            ]
            raise DataError(
                f"{root}: {pluralize(len(unknown), 'class')} of {split_name} without any image in train to learn from:"
                f"{bullets(described)}\n"
                f"put some of these images into train, remove the class from {split_name}, or correct its name"
            )
    if len(train) == 1:
        (only_class,) = describe_counts(train)
        raise DataError(
            f"{root} has one class only, {only_class}; a classifier needs two or more: one folder for each class. "
            "If that folder is itself a data set, give its path"
        )


def class_notes(dataset: Dataset) -> tuple[str, ...]:
    """Classes that train or a non-empty test lacks: allowed, but the figures will not speak of them."""
    notes = []
    for split_name, consequence in (
        ("train", "learned only where train and val are used together"),
        ("test", "the test accuracy leaves that out"),
    ):
        split = dataset.splits[split_name]
        missing = [repr(dataset.classes[k]) for k in (split.class_counts(len(dataset.classes)) == 0).nonzero()[0]]
        if len(split) and missing:
            notes.append(
                f"{split_name} has no image of {pluralize(len(missing), 'class')}: {comma_list(missing)}; {consequence}"
            )
    return tuple(notes)


def _similar_name_hint(name: str, known: Mapping[str, int]) -> str:
    casefolded = {other.casefold(): other for other in known}
    matches = difflib.get_close_matches(name.casefold(), casefolded, n=1, cutoff=0.8)
    return f"; train has {casefolded[matches[0]]!r}" if matches else ""
