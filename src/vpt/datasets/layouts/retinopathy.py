"""Diabetic retinopathy: photographs of the retina, in five grades of the disease."""

from __future__ import annotations

import csv
from pathlib import Path

from vpt.datasets.download_dir import Place
from vpt.datasets.prepared.records import Listing, Records, from_files

_CLASSES = ("grade_0", "grade_1", "grade_2", "grade_3", "grade_4")


def retinopathy(place: Place) -> Listing:
    """`trainLabels.csv` with `train/`, `retinopathy_solution.csv` with `test/`.

    The public part of the competition's test images is the validation part, the private one is test.
    """
    train_csv, test_csv = place.find("trainLabels.csv", "retinopathy_solution.csv")
    train, test = train_csv.parent / "train", train_csv.parent / "test"
    solved = _rows(test_csv)
    parts = {
        "train": _part(train, _rows(train_csv)),
        "validation": _part(test, [row for row in solved if row["Usage"] == "Public"]),
        "test": _part(test, [row for row in solved if row["Usage"] == "Private"]),
    }
    return Listing(_CLASSES, parts)


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _part(folder: Path, rows: list[dict[str, str]]) -> Records:
    keys = [row["image"] for row in rows]
    return from_files(folder, [f"{key}.jpeg" for key in keys], [int(row["level"]) for row in rows], keys)
