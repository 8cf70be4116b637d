"""Diabetic retinopathy: photographs of the retina in five grades of the disease."""

from __future__ import annotations

import csv
from pathlib import Path

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared.records import ImageRecords, SourceData, records_from_files

_CLASSES = ("grade_0", "grade_1", "grade_2", "grade_3", "grade_4")


def retinopathy(downloads: DownloadDir) -> SourceData:
    """Read `trainLabels.csv` with `train/`, and `retinopathy_solution.csv` with `test/`.

    The public part of the test images of the competition is validation, the private part is test.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    train_csv, test_csv = downloads.find("trainLabels.csv", "retinopathy_solution.csv")
    train, test = train_csv.parent / "train", train_csv.parent / "test"
    test_rows = _rows(test_csv)
    splits = {
        "train": _read_split(train, _rows(train_csv)),
        "validation": _read_split(test, [row for row in test_rows if row["Usage"] == "Public"]),
        "test": _read_split(test, [row for row in test_rows if row["Usage"] == "Private"]),
    }
    return SourceData(_CLASSES, splits)


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _read_split(folder: Path, rows: list[dict[str, str]]) -> ImageRecords:
    keys = [row["image"] for row in rows]
    return records_from_files(folder, [f"{key}.jpeg" for key in keys], [int(row["level"]) for row in rows], keys)
