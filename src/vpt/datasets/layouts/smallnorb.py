"""smallNORB: binary matrices in a format of its own, in files named .mat."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared.records import ImageRecords, SourceData, records_from_arrays
from vpt.errors import DataError

TRAIN, TEST = "smallnorb-5x46789x9x18x6x2x96x96-training", "smallnorb-5x01235x9x18x6x2x96x96-testing"
_DTYPES: dict[int, np.dtype[Any]] = {
    0x1E3D4C55: np.dtype(np.uint8),
    0x1E3D4C54: np.dtype("<i4"),
}  # magic number -> type of the elements


def _read_smallnorb(downloads: DownloadDir, *, column: int, step: int, classes: tuple[str, ...]) -> SourceData:
    """Read the images of the first camera. The label is a column of the info matrix.

    The columns are instance, elevation, azimuth and lighting. Azimuths are even numbers.
    """
    files = downloads.find(*(f"{split_name}-{kind}.mat" for split_name in (TRAIN, TEST) for kind in ("dat", "info")))
    splits = {}
    for split_name, (pixels_path, info_path) in {"train": files[:2], "test": files[2:]}.items():
        splits[split_name] = _records(split_name, read_matrix(pixels_path), read_matrix(info_path)[:, column] // step)
    return SourceData(classes, splits)


def _records(split_name: str, pixels: NDArray[Any], labels: NDArray[Any]) -> ImageRecords:
    return records_from_arrays(split_name, 5, labels, lambda i: pixels[i, 0])


azimuth: Callable[[DownloadDir], SourceData] = partial(
    _read_smallnorb, column=2, step=2, classes=tuple(f"azimuth_{20 * k:03d}" for k in range(18))
)
elevation: Callable[[DownloadDir], SourceData] = partial(
    _read_smallnorb, column=1, step=1, classes=tuple(f"elevation_{30 + 5 * k}" for k in range(9))
)


def read_matrix(file: Path) -> NDArray[Any]:
    """Read a matrix: magic number, number of dimensions, at least three sizes, elements; all little-endian.

    Args:
        file: The file.

    Returns:
        The matrix.

    Raises:
        DataError: The file is not a complete matrix.
    """
    header = np.fromfile(file, dtype="<i4", count=16)
    if len(header) < 5 or int(header[0]) not in _DTYPES or not 0 < header[1] <= 8:
        raise DataError(f"{file} is not a smallNORB matrix (it starts with {header[:2].tolist()}); extract it again")
    dtype, ndim = _DTYPES[int(header[0])], int(header[1])
    shape = tuple(int(size) for size in header[2 : 2 + ndim])
    offset = 4 * (2 + max(3, ndim))
    if file.stat().st_size != offset + dtype.itemsize * int(np.prod(shape)):
        raise DataError(f"{file} has {file.stat().st_size} bytes, which do not fit its shape {shape}; extract it again")
    matrix: NDArray[Any] = np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape)
    return matrix
