"""Oxford Flowers 102: MATLAB lists of labels and of the parts."""

from __future__ import annotations

from scipy.io import loadmat

from vpt.datasets.download_dir import Place
from vpt.datasets.prepared.records import Listing, from_files

_PARTS = {"train": "trnid", "validation": "valid", "test": "tstid"}


def flowers(place: Place) -> Listing:
    """`jpg/image_00001.jpg`, `imagelabels.mat` (labels from 1), `setid.mat` (image numbers from 1 of each part)."""
    folder, labels_at, parts_at = place.find("jpg/image_00001.jpg", "imagelabels.mat", "setid.mat")
    labels, ids = loadmat(labels_at)["labels"].ravel().astype(int), loadmat(parts_at)
    parts = {}
    for part, own in _PARTS.items():
        chosen = ids[own].ravel().astype(int)
        parts[part] = from_files(folder.parent, [f"image_{i:05d}.jpg" for i in chosen], labels[chosen - 1] - 1)
    return Listing(tuple(f"flower_{k:03d}" for k in range(1, labels.max() + 1)), parts, folder.parents[1])
