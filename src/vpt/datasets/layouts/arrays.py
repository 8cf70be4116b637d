"""Images published as arrays: CIFAR-100, SVHN, PatchCamelyon, smallNORB and dSprites.

CIFAR-100 also exists as a pickle, and one array of dSprites is a pickle. Pickles can execute code and are never read.
"""

import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from vpt.core.optional import install_hint
from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared import ImageRecords, SourceData, records_from_arrays
from vpt.errors import DataError

_CIFAR_RECORD = 2 + 3 * 32 * 32  # coarse label, fine label, then red, green and blue planes
_CAMELYON_SPLITS = {"train": "train", "validation": "valid", "test": "test"}
_NORB_SPLITS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
_NORB_DTYPES = {0x1E3D4C55: "|u1", 0x1E3D4C54: "<i4"}  # magic number -> type of the elements
_DSPRITES_FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
_DSPRITES_BINS = 16


def cifar100(downloads: DownloadDir) -> SourceData:
    """Read train.bin, test.bin and fine_label_names.txt in `cifar-100-binary/`. The label is the fine one.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """

    def read_split(file: Path, split_name: str) -> ImageRecords:
        size = file.stat().st_size
        if size % _CIFAR_RECORD:
            raise DataError(f"{file} has {size} bytes, not a multiple of {_CIFAR_RECORD}; extract it again")
        rows = np.memmap(file, dtype=np.uint8, mode="r").reshape(-1, _CIFAR_RECORD)
        planes = rows[:, 2:].reshape(-1, 3, 32, 32)
        return records_from_arrays(split_name, 5, rows[:, 1], lambda i: planes[i].transpose(1, 2, 0))

    names = ("train.bin", "test.bin", "fine_label_names.txt")
    train, test, classes = downloads.find(*(f"cifar-100-binary/{name}" for name in names))
    splits = {"train": read_split(train, "train"), "test": read_split(test, "test")}
    return SourceData(tuple(classes.read_text(encoding="utf-8").split()), splits)


def svhn(downloads: DownloadDir) -> SourceData:
    """Read `train_32x32.mat` and `test_32x32.mat`: X (32, 32, 3, n) and y (n, 1), where 10 is the digit 0.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """

    def read_split(file: Path, split_name: str) -> ImageRecords:
        stored = scipy.io.loadmat(file, variable_names=["X", "y"])
        labels = stored["y"].ravel().astype(int) % 10
        return records_from_arrays(split_name, 6, labels, lambda i: stored["X"][..., i])

    train, test = downloads.find("train_32x32.mat", "test_32x32.mat")
    splits = {"train": read_split(train, "train"), "test": read_split(test, "test")}
    return SourceData(tuple(f"digit_{digit}" for digit in range(10)), splits)


def camelyon(downloads: DownloadDir) -> SourceData:
    """Read `camelyonpatch_level_2_split_train_x.h5` and `_y.h5`, and the same for valid and test.

    x is uint8 (n, 96, 96, 3), y is (n, 1, 1, 1).

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.

    Raises:
        DataError: The optional package h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"PatchCamelyon comes as HDF5, which needs h5py; {install_hint('hdf5')}") from error

    def read_split(source_name: str, pixels_path: Path, labels_path: Path) -> ImageRecords:
        pixels = h5py.File(pixels_path, "r")["x"]
        with h5py.File(labels_path, "r") as stored:
            labels = np.asarray(stored["y"]).reshape(-1)
        records = records_from_arrays(source_name, 1, labels, lambda i: pixels[i])
        return replace(records, keys=tuple(name.removesuffix(".png") for name in records.names))

    stems = [f"camelyonpatch_level_2_split_{name}" for name in _CAMELYON_SPLITS.values()]
    files = downloads.find(*(f"{stem}_{kind}.h5" for stem in stems for kind in "xy"))
    sources = zip(_CAMELYON_SPLITS.items(), files[::2], files[1::2], strict=True)
    splits = {name: read_split(source_name, x, y) for (name, source_name), x, y in sources}
    return SourceData(("normal", "tumour"), splits)


def _read_smallnorb(downloads: DownloadDir, *, column: int, step: int, classes: tuple[str, ...]) -> SourceData:
    """Read the images of the first camera. The label is a column of the info matrix.

    The columns are instance, elevation, azimuth and lighting. Azimuths are even numbers.
    """

    def read_split(split_name: str, pixels_path: Path, info_path: Path) -> ImageRecords:
        pixels = read_norb_matrix(pixels_path)
        labels = read_norb_matrix(info_path)[:, column] // step
        return records_from_arrays(split_name, 5, labels, lambda i: pixels[i, 0])

    files = downloads.find(*(f"{stem}-{kind}.mat" for stem in _NORB_SPLITS.values() for kind in ("dat", "info")))
    sources = zip(_NORB_SPLITS, files[::2], files[1::2], strict=True)
    return SourceData(classes, {name: read_split(name, pixels, info) for name, pixels, info in sources})


_AZIMUTHS = tuple(f"azimuth_{20 * k:03d}" for k in range(18))
_ELEVATIONS = tuple(f"elevation_{30 + 5 * k}" for k in range(9))
smallnorb_azimuth: partial[SourceData] = partial(_read_smallnorb, column=2, step=2, classes=_AZIMUTHS)
smallnorb_elevation: partial[SourceData] = partial(_read_smallnorb, column=1, step=1, classes=_ELEVATIONS)


def read_norb_matrix(file: Path) -> NDArray[Any]:
    """Read a matrix of smallNORB, whose format is its own although the files are named .mat.

    The file holds a magic number, the number of dimensions, at least three sizes, and the elements, all little-endian.

    Args:
        file: The file.

    Returns:
        The matrix.

    Raises:
        DataError: The file is not a complete matrix.
    """
    header = np.fromfile(file, dtype="<i4", count=16)
    if len(header) < 5 or int(header[0]) not in _NORB_DTYPES or not 0 < header[1] <= 8:
        raise DataError(f"{file} is not a smallNORB matrix (it starts with {header[:2].tolist()}); extract it again")
    dtype, ndim = np.dtype(_NORB_DTYPES[int(header[0])]), int(header[1])
    shape = tuple(int(size) for size in header[2 : 2 + ndim])
    offset, size = 4 * (2 + max(3, ndim)), file.stat().st_size
    if size != offset + dtype.itemsize * int(np.prod(shape)):
        raise DataError(f"{file} has {size} bytes, which do not fit its shape {shape}; extract it again")
    matrix: NDArray[Any] = np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape)
    return matrix


def _read_dsprites(downloads: DownloadDir, *, column: int, values: int, name: str) -> SourceData:
    """Read the images. Neighboring values of one latent form 16 classes: floor(16 x value / values).

    The images are read from the archive one by one, because the extracted array has 3 GB.
    """
    (file,) = downloads.find(_DSPRITES_FILE)
    try:
        with np.load(file, allow_pickle=False) as stored:
            latents = stored["latents_classes"][:, column]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} has no readable latents_classes ({error}); download it again") from error
    archive = zipfile.ZipFile(file)
    stream = archive.open("imgs.npy")
    np.lib.format.read_magic(stream)
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran_order or dtype != np.uint8 or len(shape) != 3:
        raise DataError(f"{file}: imgs are {dtype} {shape}; expected uint8 (n, 64, 64)")
    if shape[0] != len(latents):
        raise DataError(f"{file} holds {shape[0]} images and {len(latents)} labels; download it again")
    start, size = stream.tell(), shape[1] * shape[2]

    def read_pixels(i: int) -> NDArray[np.uint8]:
        stream.seek(start + i * size)
        return np.frombuffer(stream.read(size), dtype=np.uint8).reshape(shape[1:]) * 255

    records = records_from_arrays("train", 6, latents * _DSPRITES_BINS // values, read_pixels)
    return SourceData(tuple(f"{name}_{k:02d}" for k in range(_DSPRITES_BINS)), {"train": records})


dsprites_location: partial[SourceData] = partial(_read_dsprites, column=4, values=32, name="x")
dsprites_orientation: partial[SourceData] = partial(_read_dsprites, column=3, values=40, name="turn")
