"""What must hold of the classes of a dataset, whatever layout it was read from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from vpt.core.text import counted, lines, listed, number
from vpt.data.dataset import Dataset
from vpt.errors import DataError


def check_classes(root: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Raise DataError unless train has two classes and every class of the other parts.

    counts: part ("train", "val", "test") -> class name -> images.
    """
    train = counts["train"]
    for part, found in counts.items():
        strange = {name: count for name, count in found.items() if name not in train}
        if strange:
            named = [text + _resembling(name, train) for name, text in zip(strange, counted(strange), strict=True)]
            raise DataError(
                f"{root}: {number(len(strange), 'class')} of {part} without any image in train to learn from:"
                f"{lines(named)}\n"
                f"put some of these images into train, remove the class from {part}, or correct its name"
            )
    if len(train) == 1:
        (only,) = counted(train)
        raise DataError(
            f"{root} has one class only, {only}; a classifier needs two or more: one folder for each class. "
            "If that folder is itself a data set, give its path"
        )


def class_notes(dataset: Dataset) -> tuple[str, ...]:
    """Classes that train or a non-empty test lacks: allowed, but the figures will not speak of them."""
    notes = []
    for part, consequence in (
        ("train", "learned only where train and val are used together"),
        ("test", "the test accuracy leaves that out"),
    ):
        split = dataset.splits[part]
        absent = [repr(dataset.classes[k]) for k in (split.counts(len(dataset.classes)) == 0).nonzero()[0]]
        if len(split) and absent:
            notes.append(f"{part} has no image of {number(len(absent), 'class')}: {listed(absent)}; {consequence}")
    return tuple(notes)


def _resembling(name: str, known: Mapping[str, int]) -> str:
    folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.8)
    return f"; train has {folded[close[0]]!r}" if close else ""
