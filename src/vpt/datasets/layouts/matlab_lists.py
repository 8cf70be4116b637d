"""Images listed in MATLAB files: Oxford Flowers 102, Stanford Dogs and Stanford Cars. Their labels start at 1."""

import numpy as np
import scipy

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared import ImageRecords, SourceData, records_from_files


def flowers(downloads: DownloadDir) -> SourceData:
    """Read `jpg/image_00001.jpg`, `imagelabels.mat` and `setid.mat` (image numbers of splits, from 1).

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    first, labels_path, splits_path = downloads.find("jpg/image_00001.jpg", "imagelabels.mat", "setid.mat")
    labels, stored = scipy.io.loadmat(labels_path)["labels"].ravel().astype(int), scipy.io.loadmat(splits_path)
    splits = {}
    for split_name, source_name in (("train", "trnid"), ("validation", "valid"), ("test", "tstid")):
        numbers = stored[source_name].ravel().astype(int)
        names = [f"image_{i:05d}.jpg" for i in numbers]
        splits[split_name] = records_from_files(first.parent, names, labels[numbers - 1] - 1)
    return SourceData(tuple(f"flower_{k:03d}" for k in range(1, labels.max() + 1)), splits, first.parents[1])


def dogs(downloads: DownloadDir) -> SourceData:
    """Read `Images/n02085620-Chihuahua/n02085620_10.jpg`, `train_list.mat` and `test_list.mat`.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    first, *lists = downloads.find("Images/n02085620-Chihuahua", "train_list.mat", "test_list.mat")
    splits: dict[str, ImageRecords] = {}
    folders: dict[int, str] = {}
    for split_name, stored in zip(("train", "test"), map(scipy.io.loadmat, lists), strict=True):
        names = [str(np.squeeze(cell)) for cell in stored["file_list"].ravel()]
        labels = stored["labels"].ravel().astype(int) - 1
        folders |= {int(label): name.split("/")[0] for label, name in zip(labels, names, strict=True)}
        splits[split_name] = records_from_files(first.parent, names, labels)
    classes = tuple(folders[label].split("-", 1)[-1] for label in sorted(folders))
    return SourceData(classes, splits, first.parents[1])


def cars(downloads: DownloadDir) -> SourceData:
    """Read `cars_train/00001.jpg`, `cars_test/`, `devkit/cars_train_annos.mat` and `cars_meta.mat`.

    The labels of test are in cars_test_annos_withlabels.mat.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    annotations = ("devkit/cars_train_annos.mat", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat")
    train, test, train_list, meta, test_list = downloads.find("cars_train", "cars_test", *annotations)
    splits = {}
    for split_name, folder, file in (("train", train, train_list), ("test", test, test_list)):
        stored = scipy.io.loadmat(file)["annotations"].ravel()
        names = [f"{folder.name}/{np.squeeze(row['fname'])}" for row in stored]
        labels = [int(np.squeeze(row["class"])) - 1 for row in stored]
        splits[split_name] = records_from_files(folder.parent, names, labels)
    classes = tuple(str(np.squeeze(cell)) for cell in scipy.io.loadmat(meta)["class_names"].ravel())
    return SourceData(classes, splits, train.parent)
