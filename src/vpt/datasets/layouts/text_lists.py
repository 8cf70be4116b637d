"""Images listed in text files: DTD, Oxford Pets, SUN397, CUB-200-2011, NABirds and diabetic retinopathy."""

import csv
from functools import partial
from pathlib import Path

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared import ImageRecords, SourceData, records_from_files
from vpt.errors import DataError


def dtd(downloads: DownloadDir) -> SourceData:
    """Read train1.txt, val1.txt and test1.txt (the first of ten folds) in `dtd/labels/`.

    A line is "banded/banded_0002.jpg".

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    lists = downloads.find("labels/train1.txt", "labels/val1.txt", "labels/test1.txt")
    return _label_by_folder(lists[0].parents[1] / "images", lists)


def sun397(downloads: DownloadDir) -> SourceData:
    """Read `SUN397/a/abbey/sun_x.jpg`, and sun397_tfds_tr.txt, _va.txt and _te.txt.

    A line is "/a/abbey/sun_x.jpg".

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    root, *lists = downloads.find("SUN397/a", *(f"sun397_tfds_{name}.txt" for name in ("tr", "va", "te")))
    return _label_by_folder(root.parent, lists)


def pets(downloads: DownloadDir) -> SourceData:
    """Read trainval.txt and test.txt in `annotations/`.

    A line is "Abyssinian_100 1 1 1": name, class from 1, species, breed.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    lists = downloads.find("annotations/trainval.txt", "annotations/test.txt")
    rows = [[line.split() for line in _lines(file)] for file in lists]
    (first,) = downloads.find(f"images/{rows[0][0][0]}.jpg")
    splits: dict[str, ImageRecords] = {}
    classes: dict[int, str] = {}
    for split_name, found in zip(("train", "test"), rows, strict=True):
        labels = [int(row[1]) - 1 for row in found]
        classes |= {label: row[0].rsplit("_", 1)[0] for label, row in zip(labels, found, strict=True)}
        splits[split_name] = records_from_files(first.parent, [f"{row[0]}.jpg" for row in found], labels)
    return SourceData(tuple(classes[label] for label in sorted(classes)), splits)


def _read_birds(downloads: DownloadDir, *, folder: str) -> SourceData:
    """Read `images.txt`, `image_class_labels.txt`, `train_test_split.txt` (1 is train), `classes.txt` and `images/`.

    Every line starts with the number of an image or class. Labels are the class numbers with images, in order, because
    NABirds numbers its whole tree of species.
    """
    names = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    files = downloads.find(*(f"{folder}/{name}" for name in names))
    root = files[0].parent
    images, class_numbers, in_train, class_names = (
        {number: text for number, text in (line.split(maxsplit=1) for line in _lines(file))} for file in files
    )
    lacking = sorted(set(images) - (set(class_numbers) & set(in_train)))
    if lacking:
        raise DataError(f"{root}: {len(lacking)} images lack label or split, such as {lacking[0]}; extract it again")
    used = sorted(set(class_numbers.values()), key=int)
    label_of = {number: label for label, number in enumerate(used)}
    splits = {}
    for split_name, flag in (("train", "1"), ("test", "0")):
        chosen = [image for image in images if in_train[image] == flag]
        labels = [label_of[class_numbers[image]] for image in chosen]
        splits[split_name] = records_from_files(root / "images", [images[image] for image in chosen], labels)
    return SourceData(tuple(class_names[number].split(".", 1)[-1] for number in used), splits, root)


cub: partial[SourceData] = partial(_read_birds, folder="CUB_200_2011")
nabirds: partial[SourceData] = partial(_read_birds, folder="nabirds")


def retinopathy(downloads: DownloadDir) -> SourceData:
    """Read `trainLabels.csv` with `train/`, and `retinopathy_solution.csv` with `test/`.

    The public part of the test images of the competition is validation, the private part is test.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    files = downloads.find("trainLabels.csv", "retinopathy_solution.csv")
    root = files[0].parent
    train, test = (list(csv.DictReader(_lines(file))) for file in files)

    def read_split(folder: str, rows: list[dict[str, str]]) -> ImageRecords:
        keys = [row["image"] for row in rows]
        labels = [int(row["level"]) for row in rows]
        return records_from_files(root / folder, [f"{key}.jpeg" for key in keys], labels, keys)

    splits = {
        "train": read_split("train", train),
        "validation": read_split("test", [row for row in test if row["Usage"] == "Public"]),
        "test": read_split("test", [row for row in test if row["Usage"] == "Private"]),
    }
    return SourceData(tuple(f"grade_{grade}" for grade in range(5)), splits)


def _label_by_folder(root: Path, lists: list[Path] | tuple[Path, ...]) -> SourceData:
    """Return the images of lists of train, validation and test, labeled by their folder below `root`.

    The key of an image is its line. The names of classes are the folders without the leading letter of SUN397:
    "airport_terminal" for "a/airport_terminal".
    """
    found = dict(zip(("train", "validation", "test"), map(_lines, lists), strict=True))
    folder_of = {name: name.strip("/").rpartition("/")[0] for names in found.values() for name in names}
    folders = sorted(set(folder_of.values()))
    label_of = {folder: label for label, folder in enumerate(folders)}
    splits = {}
    for split_name, names in found.items():
        labels = [label_of[folder_of[name]] for name in names]
        splits[split_name] = records_from_files(root, [name.lstrip("/") for name in names], labels, names)
    return SourceData(tuple(folder[2:] if folder[1:2] == "/" else folder for folder in folders), splits)


def _lines(file: Path) -> list[str]:
    """Return the lines of a file without comments and empty lines."""
    lines = map(str.strip, file.read_text(encoding="utf-8").splitlines())
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise DataError(f"{file} is empty; extract or download it again")
    return found
