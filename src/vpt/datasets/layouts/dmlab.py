"""DMLab: frames of a 3D maze in TFRecord files; the stored JPEG bytes are taken as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vpt.datasets.download_dir import MissingFiles, Place
from vpt.datasets.layouts.tfrecord import example, records
from vpt.datasets.prepared.records import Listing, Records
from vpt.errors import DataError

_PARTS = ("train", "validation", "test")


def dmlab(place: Place) -> Listing:
    """`dmlab-train.tfrecord-00000-of-00065`, likewise validation and test: features image, filename and label."""
    files = {part: _files(place, part) for part in _PARTS}
    missing = [f"dmlab-{part}.tfrecord*" for part, found in files.items() if not found]
    if missing:
        raise MissingFiles(missing, place.roots)
    return Listing(tuple(f"class_{k}" for k in range(6)), {part: _records(found) for part, found in files.items()})


def _files(place: Place, part: str) -> list[Path]:
    for root in place.roots:
        for pattern in ("", "*/", "*/*/"):
            found = sorted(root.glob(f"{pattern}dmlab-{part}.tfrecord*"))
            if found:
                return found
    return []


def _records(files: list[Path]) -> Records:
    spans = [(file, *span) for file in files for span in records(file)]
    names, labels = [], []
    for span in spans:
        values = _read(*span)
        names.append(bytes(values["filename"]).decode())
        labels.append(int(values["label"]))
    return Records(tuple(names), np.array(labels), lambda i: bytes(_read(*spans[i])["image"]))


def _read(file: Path, offset: int, length: int) -> dict[str, bytes | int]:
    with file.open("rb") as stream:
        stream.seek(offset)
        values = example(stream.read(length))
    lacking = {"image", "filename", "label"} - set(values)
    if lacking:
        raise DataError(f"{file}: the record at byte {offset} has no {', '.join(sorted(lacking))}; unpack it again")
    return values
