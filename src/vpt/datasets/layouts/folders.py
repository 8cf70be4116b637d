"""Class folders without published splits: EuroSAT, RESISC45 and Caltech-101."""

import hashlib
from dataclasses import replace
from pathlib import Path

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared import SourceData, records_from_files

CALTECH_TRAIN = 30  # images of each class


def eurosat(downloads: DownloadDir) -> SourceData:
    """Read `2750/AnnualCrop/AnnualCrop_1.jpg`.

    Args:
        downloads: The downloaded files.

    Returns:
        All images as train.
    """
    return _read_class_folders(downloads.find("AnnualCrop")[0].parent)


def resisc45(downloads: DownloadDir) -> SourceData:
    """Read `NWPU-RESISC45/airplane/airplane_001.jpg`.

    Args:
        downloads: The downloaded files.

    Returns:
        All images as train.
    """
    return _read_class_folders(downloads.find("airplane/airplane_001.jpg")[0].parents[1])


def caltech101(downloads: DownloadDir) -> SourceData:
    """Read `101_ObjectCategories/accordion/image_0001.jpg`, and draw 30 images of each class for train.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    root = downloads.find("BACKGROUND_Google")[0].parent
    classes, names, labels = _class_folders(root)
    train: list[int] = []
    for label in range(len(classes)):
        members = [i for i, found in enumerate(labels) if found == label]
        train += sorted(members, key=lambda i: hashlib.sha256(names[i].encode()).digest())[:CALTECH_TRAIN]
    records = records_from_files(root, names, labels)
    splits = {"train": sorted(train), "test": sorted(set(range(len(names))) - set(train))}
    note = (
        "train and test of caltech101 are vpt's own draw (30 images of each class train): the published draw followed "
        "the order in which one machine listed its files, and its names do not tell the class; figures are not "
        "comparable with published ones"
    )
    return SourceData(classes, {name: records.select(indices) for name, indices in splits.items()}, notes=(note,))


def _read_class_folders(root: Path) -> SourceData:
    """Return all images as one split, in the order of TensorFlow Datasets, whose keys are "class_file"."""
    classes, names, labels = _class_folders(root)
    records = records_from_files(root, names, labels, [name.replace("/", "_", 1) for name in names])
    return SourceData(classes, {"train": replace(records, names=tuple(name.split("/", 1)[1] for name in names))})


def _class_folders(root: Path) -> tuple[tuple[str, ...], list[str], list[int]]:
    """Return the class names, and "class/file.jpg" and the label of each image. Other files are ignored."""
    classes = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    files = [(file, label) for label, name in enumerate(classes) for file in sorted((root / name).glob("[!.]*.jpg"))]
    return classes, [f"{file.parent.name}/{file.name}" for file, _ in files], [label for _, label in files]
