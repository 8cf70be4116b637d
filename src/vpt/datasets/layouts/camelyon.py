"""PatchCamelyon: HDF5 files, read with the optional package h5py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from vpt.core.optional import install_hint
from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared.records import ImageRecords, SourceData, records_from_arrays
from vpt.errors import DataError

_SPLIT_NAMES = {"train": "train", "validation": "valid", "test": "test"}


def camelyon(downloads: DownloadDir) -> SourceData:
    """Read `camelyonpatch_level_2_split_train_x.h5` and `_y.h5`, and the same for valid and test.

    x is uint8 (n, 96, 96, 3), y is (n, 1, 1, 1).

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    h5py = _h5py()
    names = [
        f"camelyonpatch_level_2_split_{split_name}_{kind}.h5" for split_name in _SPLIT_NAMES.values() for kind in "xy"
    ]
    files = dict(zip(names, downloads.find(*names), strict=True))
    splits = {}
    for split_name, source_name in _SPLIT_NAMES.items():
        pixels = h5py.File(files[f"camelyonpatch_level_2_split_{source_name}_x.h5"], "r")["x"]
        with h5py.File(files[f"camelyonpatch_level_2_split_{source_name}_y.h5"], "r") as stored:
            labels = np.asarray(stored["y"]).reshape(-1)
        splits[split_name] = _records(source_name, pixels, labels)
    return SourceData(("normal", "tumour"), splits)


def _records(split_name: str, pixels: Any, labels: Any) -> ImageRecords:
    records = records_from_arrays(split_name, 1, labels, lambda i: pixels[i])
    return replace(records, keys=tuple(name.removesuffix(".png") for name in records.names))


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"PatchCamelyon comes as HDF5, which needs h5py; {install_hint('hdf5')}") from error
    return h5py
