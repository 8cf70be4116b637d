"""SVHN, cropped digits: MATLAB files with one array of all images."""

from __future__ import annotations

from pathlib import Path

from scipy.io import loadmat

from vpt.datasets.download_dir import Place
from vpt.datasets.prepared.records import Listing, Records, indices, numbered, png


def svhn(place: Place) -> Listing:
    """`train_32x32.mat`, `test_32x32.mat`: X (32, 32, 3, n) and y (n, 1), where 10 stands for the digit 0."""
    train, test = place.find("train_32x32.mat", "test_32x32.mat")
    classes = tuple(f"digit_{digit}" for digit in range(10))
    return Listing(classes, {"train": _part(train, "train"), "test": _part(test, "test")})


def _part(file: Path, part: str) -> Records:
    stored = loadmat(file, variable_names=["X", "y"])
    pixels, labels = stored["X"], stored["y"].ravel().astype(int) % 10
    return Records(numbered(part, len(labels), 6), labels, lambda i: png(pixels[..., i]), indices(len(labels)))
