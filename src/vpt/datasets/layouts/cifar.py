"""CIFAR-100, binary version. The Python version is a pickle, which could run any program: it is never opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vpt.datasets.download_dir import Place
from vpt.datasets.prepared.records import Listing, Records, indices, numbered, png
from vpt.errors import DataError

_ROW = 2 + 3 * 32 * 32  # coarse label, fine label, then red, green and blue planes


def cifar100(place: Place) -> Listing:
    """`cifar-100-binary/`: train.bin, test.bin, fine_label_names.txt. The label is the fine one."""
    train, test, names = place.find(
        *(f"cifar-100-binary/{n}" for n in ("train.bin", "test.bin", "fine_label_names.txt"))
    )
    classes = tuple(names.read_text(encoding="utf-8").split())
    return Listing(classes, {"train": _part(train, "train"), "test": _part(test, "test")})


def _part(file: Path, part: str) -> Records:
    if file.stat().st_size % _ROW:
        raise DataError(
            f"{file} has {file.stat().st_size} bytes, no multiple of {_ROW}; it is cut off, unpack it again"
        )
    rows = np.memmap(file, dtype=np.uint8, mode="r").reshape(-1, _ROW)
    return Records(
        numbered(part, len(rows), 5),
        rows[:, 1],
        lambda i: png(rows[i, 2:].reshape(3, 32, 32).transpose(1, 2, 0)),
        indices(len(rows)),
    )
