"""CIFAR-100, binary version. The Python version is a pickle, which can execute code, and is never read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared.records import ImageRecords, SourceData, records_from_arrays
from vpt.errors import DataError

_RECORD_SIZE = 2 + 3 * 32 * 32  # coarse label, fine label, then red, green and blue planes


def cifar100(downloads: DownloadDir) -> SourceData:
    """Read train.bin, test.bin and fine_label_names.txt in `cifar-100-binary/`. The label is the fine one.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    train, test, names = downloads.find(
        *(f"cifar-100-binary/{name}" for name in ("train.bin", "test.bin", "fine_label_names.txt"))
    )
    classes = tuple(names.read_text(encoding="utf-8").split())
    return SourceData(classes, {"train": _read_split(train, "train"), "test": _read_split(test, "test")})


def _read_split(file: Path, split_name: str) -> ImageRecords:
    if file.stat().st_size % _RECORD_SIZE:
        raise DataError(f"{file} has {file.stat().st_size} bytes, not a multiple of {_RECORD_SIZE}; extract it again")
    rows = np.memmap(file, dtype=np.uint8, mode="r").reshape(-1, _RECORD_SIZE)
    return records_from_arrays(split_name, 5, rows[:, 1], lambda i: rows[i, 2:].reshape(3, 32, 32).transpose(1, 2, 0))
