"""Oxford Flowers 102: MATLAB lists of labels and splits."""

from __future__ import annotations

from scipy.io import loadmat

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared.records import SourceData, records_from_files

_SPLIT_NAMES = {"train": "trnid", "validation": "valid", "test": "tstid"}


def flowers(downloads: DownloadDir) -> SourceData:
    """Read `jpg/image_00001.jpg`, `imagelabels.mat` (labels from 1) and `setid.mat` (image numbers of splits, from 1).

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    folder, labels_path, splits_path = downloads.find("jpg/image_00001.jpg", "imagelabels.mat", "setid.mat")
    labels, ids = loadmat(labels_path)["labels"].ravel().astype(int), loadmat(splits_path)
    splits = {}
    for split_name, source_name in _SPLIT_NAMES.items():
        chosen = ids[source_name].ravel().astype(int)
        splits[split_name] = records_from_files(
            folder.parent, [f"image_{i:05d}.jpg" for i in chosen], labels[chosen - 1] - 1
        )
    return SourceData(tuple(f"flower_{k:03d}" for k in range(1, labels.max() + 1)), splits, folder.parents[1])
