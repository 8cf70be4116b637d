"""CUB-200-2011 and NABirds: four text files, keyed by image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared.records import SourceData, records_from_files
from vpt.errors import DataError


def _read_birds(downloads: DownloadDir, *, folder: str) -> SourceData:
    """Read `images.txt`, `image_class_labels.txt`, `train_test_split.txt` (1 is train), `classes.txt` and `images/`.

    Labels are the class numbers with images, in order, because NABirds numbers its whole tree of species.
    """
    names = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    files = downloads.find(*(f"{folder}/{name}" for name in names))
    images, class_numbers, in_train, class_names = map(_table, files)
    unlabeled = sorted(set(images) - (set(class_numbers) & set(in_train)))
    if unlabeled:
        raise DataError(
            f"{files[0].parent}: {len(unlabeled)} images lack label or split, such as {unlabeled[0]}; extract it again"
        )
    used_classes = sorted(set(class_numbers.values()), key=int)
    labels = {number: label for label, number in enumerate(used_classes)}
    splits = {}
    for split_name, flag in (("train", "1"), ("test", "0")):
        images_in_split = [image for image in images if in_train[image] == flag]
        splits[split_name] = records_from_files(
            files[0].parent / "images",
            [images[image] for image in images_in_split],
            [labels[class_numbers[image]] for image in images_in_split],
        )
    return SourceData(tuple(class_names[number].split(".", 1)[-1] for number in used_classes), splits, files[0].parent)


cub: Callable[[DownloadDir], SourceData] = partial(_read_birds, folder="CUB_200_2011")
nabirds: Callable[[DownloadDir], SourceData] = partial(_read_birds, folder="nabirds")


def _table(file: Path) -> dict[str, str]:
    """Return first word of each line to the rest of the line."""
    rows = (line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    return {row[0]: row[1].strip() for row in rows}
