"""PatchCamelyon: HDF5 files, read with h5py, which is an extra."""

from __future__ import annotations

from typing import Any

import numpy as np

from vpt.datasets.download_dir import Place
from vpt.datasets.prepared.records import Listing, Records, png
from vpt.errors import DataError

_PARTS = {"train": "train", "validation": "valid", "test": "test"}


def camelyon(place: Place) -> Listing:
    """`camelyonpatch_level_2_split_train_x.h5` and `_y.h5`, likewise valid and test.

    x is uint8 (n, 96, 96, 3), y (n, 1, 1, 1).
    """
    h5py = _h5py()
    names = [f"camelyonpatch_level_2_split_{part}_{kind}.h5" for part in _PARTS.values() for kind in "xy"]
    files = dict(zip(names, place.find(*names), strict=True))
    parts = {}
    for part, own in _PARTS.items():
        pixels = h5py.File(files[f"camelyonpatch_level_2_split_{own}_x.h5"], "r")["x"]
        with h5py.File(files[f"camelyonpatch_level_2_split_{own}_y.h5"], "r") as stored:
            labels = np.asarray(stored["y"]).reshape(-1)
        parts[part] = _records(own, pixels, labels)
    return Listing(("normal", "tumour"), parts)


def _records(part: str, pixels: Any, labels: Any) -> Records:
    keys = tuple(f"{part}_{i}" for i in range(len(labels)))
    return Records(tuple(f"{key}.png" for key in keys), labels, lambda i: png(pixels[i]), keys)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError('PatchCamelyon comes as HDF5; to read it: pip install "vpt[hdf5]"') from error
    return h5py
