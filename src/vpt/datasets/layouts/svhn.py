"""SVHN, cropped digits: MATLAB files with one array of all images."""

from __future__ import annotations

from pathlib import Path

from scipy.io import loadmat

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared.records import ImageRecords, SourceData, records_from_arrays


def svhn(downloads: DownloadDir) -> SourceData:
    """Read `train_32x32.mat` and `test_32x32.mat`: X (32, 32, 3, n) and y (n, 1), where 10 is the digit 0.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    train, test = downloads.find("train_32x32.mat", "test_32x32.mat")
    classes = tuple(f"digit_{digit}" for digit in range(10))
    return SourceData(classes, {"train": _read_split(train, "train"), "test": _read_split(test, "test")})


def _read_split(file: Path, split_name: str) -> ImageRecords:
    stored = loadmat(file, variable_names=["X", "y"])
    pixels, labels = stored["X"], stored["y"].ravel().astype(int) % 10
    return records_from_arrays(split_name, 6, labels, lambda i: pixels[..., i])
