"""smallNORB: the publisher's own binary matrices, named .mat though MATLAB did not write them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.datasets.download_dir import Place
from vpt.datasets.prepared.records import Listing, Records, indices, numbered, png
from vpt.errors import DataError

TRAIN, TEST = "smallnorb-5x46789x9x18x6x2x96x96-training", "smallnorb-5x01235x9x18x6x2x96x96-testing"
_KINDS: dict[int, np.dtype[Any]] = {
    0x1E3D4C55: np.dtype(np.uint8),
    0x1E3D4C54: np.dtype("<i4"),
}  # magic number -> type of the elements


def _smallnorb(place: Place, *, column: int, step: int, classes: tuple[str, ...]) -> Listing:
    """The label is a column of the info matrix (instance, elevation, azimuth, lighting); azimuths are even numbers.

    The image is that of the first of the two cameras.
    """
    files = place.find(*(f"{part}-{kind}.mat" for part in (TRAIN, TEST) for kind in ("dat", "info")))
    parts = {}
    for part, (pixels_at, info_at) in {"train": files[:2], "test": files[2:]}.items():
        parts[part] = _records(part, read_matrix(pixels_at), read_matrix(info_at)[:, column] // step)
    return Listing(classes, parts)


def _records(part: str, pixels: NDArray[Any], labels: NDArray[Any]) -> Records:
    return Records(numbered(part, len(labels), 5), labels, lambda i: png(pixels[i, 0]), indices(len(labels)))


azimuth = partial(_smallnorb, column=2, step=2, classes=tuple(f"azimuth_{20 * k:03d}" for k in range(18)))
elevation = partial(_smallnorb, column=1, step=1, classes=tuple(f"elevation_{30 + 5 * k}" for k in range(9)))


def read_matrix(file: Path) -> NDArray[Any]:
    """A matrix: magic number, number of dimensions, at least three sizes, elements; all little-endian."""
    head = np.fromfile(file, dtype="<i4", count=16)
    if len(head) < 5 or int(head[0]) not in _KINDS or not 0 < head[1] <= 8:
        raise DataError(f"{file} is no smallNORB matrix (it begins with {head[:2].tolist()}); unpack it again")
    kind, dims = _KINDS[int(head[0])], int(head[1])
    shape = tuple(int(size) for size in head[2 : 2 + dims])
    offset = 4 * (2 + max(3, dims))
    if file.stat().st_size != offset + kind.itemsize * int(np.prod(shape)):
        raise DataError(f"{file} has {file.stat().st_size} bytes, which do not fit its shape {shape}; unpack it again")
    matrix: NDArray[Any] = np.memmap(file, dtype=kind, mode="r", offset=offset, shape=shape)
    return matrix
