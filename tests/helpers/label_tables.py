"""Tables of labels of twenty images in two class folders."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from vpt.data.loading import load_dataset
from vpt.errors import DataError

NAMES = [f"{folder}/{i}.png" for folder in ("ant", "bee") for i in range(10)]


def rows(*columns: str, names: list[str] = NAMES) -> list[dict[str, str]]:
    """Return a row for each image: its name and its class under the given columns."""
    return [dict(zip(columns, (name, name.split("/")[-2]), strict=True)) for name in names]


def write_csv(path: Path, found: list[dict[str, str]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(found)
    return path


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def labels_of(source: str | Path, **options: object) -> dict[str, str]:
    """Return the class of each image of a source, by its file."""
    data = load_dataset(source, val_fraction=0, test_fraction=0, **options)
    return {
        path.as_posix(): data.classes[label]
        for split in data.splits.values()
        for path, label in zip(split.paths, split.labels, strict=True)
    }


def refusal(source: str | Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(source, **options)
    return str(caught.value)
