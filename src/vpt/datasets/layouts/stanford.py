"""Stanford Dogs and Stanford Cars: MATLAB lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared.records import ImageRecords, SourceData, records_from_files


def dogs(downloads: DownloadDir) -> SourceData:
    """Read `Images/n02085620-Chihuahua/n02085620_10.jpg`, `train_list.mat` and `test_list.mat` (labels from 1).

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    first, *lists = downloads.find("Images/n02085620-Chihuahua", "train_list.mat", "test_list.mat")
    root = first.parent
    splits, classes = {}, {}
    for split_name, file in zip(("train", "test"), lists, strict=True):
        stored = loadmat(file)
        names = [str(np.squeeze(cell)) for cell in stored["file_list"].ravel()]
        labels = stored["labels"].ravel().astype(int) - 1
        classes.update(
            {int(label): name.split("/")[0].split("-", 1)[-1] for label, name in zip(labels, names, strict=True)}
        )
        splits[split_name] = records_from_files(root, names, labels)
    return SourceData(tuple(classes[label] for label in sorted(classes)), splits, root.parent)


def cars(downloads: DownloadDir) -> SourceData:
    """Read `cars_train/00001.jpg`, `cars_test/`, `devkit/cars_train_annos.mat` and `cars_meta.mat`.

    The labels of test are in cars_test_annos_withlabels.mat.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    train, test, train_annotations, meta, test_annotations = downloads.find(
        "cars_train",
        "cars_test",
        "devkit/cars_train_annos.mat",
        "devkit/cars_meta.mat",
        "cars_test_annos_withlabels.mat",
    )
    classes = tuple(str(np.squeeze(cell)) for cell in loadmat(meta)["class_names"].ravel())
    return SourceData(
        classes, {"train": _cars(train, train_annotations), "test": _cars(test, test_annotations)}, train.parent
    )


def _cars(folder: Path, annotations: Path) -> ImageRecords:
    stored = loadmat(annotations)["annotations"].ravel()
    labels = [int(np.squeeze(row["class"])) - 1 for row in stored]
    return records_from_files(folder.parent, [f"{folder.name}/{np.squeeze(row['fname'])}" for row in stored], labels)
