"""dSprites: 737,280 binary images in a compressed .npz, of which two arrays are read.

The third array is a pickle, which can execute code, and is never read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared.records import SourceData, records_from_arrays
from vpt.errors import DataError

FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
BINS = 16


def _read_dsprites(downloads: DownloadDir, *, column: int, values: int, name: str) -> SourceData:
    """Read the images. Neighboring values of one latent form 16 classes: floor(16 x value / values)."""
    (file,) = downloads.find(FILE)
    try:
        with np.load(file, allow_pickle=False) as stored:
            latent = stored["latents_classes"][:, column]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} has no readable latents_classes ({error}); download it again") from error
    images = _ZippedImages(file, "imgs.npy", len(latent))
    records = records_from_arrays("train", 6, latent * BINS // values, lambda i: images[i] * 255)
    return SourceData(tuple(f"{name}_{k:02d}" for k in range(BINS)), {"train": records})


location: Callable[[DownloadDir], SourceData] = partial(_read_dsprites, column=4, values=32, name="x")
orientation: Callable[[DownloadDir], SourceData] = partial(_read_dsprites, column=3, values=40, name="turn")


class _ZippedImages:
    """An array of images (n, height, width) in a zip file, 3 GB when extracted, read sequentially."""

    def __init__(self, file: Path, member: str, count: int) -> None:
        self.archive, self.member = zipfile.ZipFile(file), member
        self._open()
        if self.shape[0] != count:
            raise DataError(f"{file} holds {self.shape[0]} images and {count} labels; download it again")

    def _open(self) -> None:
        self.stream: IO[bytes] = self.archive.open(self.member)
        version = np.lib.format.read_magic(self.stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran_order, dtype = read(self.stream)
        if fortran_order or dtype != np.uint8 or len(self.shape) != 3:
            raise DataError(f"{self.archive.filename}: imgs are {dtype} {self.shape}; expected uint8 (n, 64, 64)")
        self.position = 0

    def __getitem__(self, i: int) -> NDArray[Any]:
        if i < self.position:
            self._open()
        size = self.shape[1] * self.shape[2]
        for _ in range(self.position, i):
            self.stream.read(size)
        self.position = i + 1
        return np.frombuffer(self.stream.read(size), dtype=np.uint8).reshape(self.shape[1:])
