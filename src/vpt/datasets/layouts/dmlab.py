"""DMLab: frames of a 3D maze in TFRecord files. The stored JPEG bytes are copied."""

from pathlib import Path

import numpy as np

from vpt.datasets.download_dir import DownloadDir, MissingFilesError
from vpt.datasets.layouts.tfrecord import iter_records, parse_example
from vpt.datasets.prepared import ImageRecords, SourceData
from vpt.errors import DataError


def dmlab(downloads: DownloadDir) -> SourceData:
    """Read `dmlab-train.tfrecord-00000-of-00065`, and the same for validation and test.

    The features are image, filename and label.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.

    Raises:
        MissingFilesError: Files are missing.
    """
    files = {name: downloads.glob(f"dmlab-{name}.tfrecord*") for name in ("train", "validation", "test")}
    missing = [f"dmlab-{name}.tfrecord*" for name, found in files.items() if not found]
    if missing:
        raise MissingFilesError(missing, downloads.roots)
    return SourceData(tuple(f"class_{k}" for k in range(6)), {name: _records(found) for name, found in files.items()})


def _records(files: list[Path]) -> ImageRecords:
    spans = [(file, *span) for file in files for span in iter_records(file)]
    names, labels = [], []
    for span in spans:  # one by one, because the images of a split may not fit in memory
        features = _read(*span)
        names.append(bytes(features["filename"]).decode())
        labels.append(int(features["label"]))
    return ImageRecords(tuple(names), np.array(labels), lambda i: bytes(_read(*spans[i])["image"]))


def _read(file: Path, offset: int, length: int) -> dict[str, bytes | int]:
    with file.open("rb") as stream:
        stream.seek(offset)
        values = parse_example(stream.read(length))
    lacking = {"image", "filename", "label"} - set(values)
    if lacking:
        raise DataError(f"{file}: the record at byte {offset} has no {', '.join(sorted(lacking))}; extract it again")
    return values
