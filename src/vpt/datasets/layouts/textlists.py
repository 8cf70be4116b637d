"""Images with lists in text files: DTD, Oxford Pets and SUN397."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared.records import ImageRecords, SourceData, records_from_files
from vpt.errors import DataError


def dtd(downloads: DownloadDir) -> SourceData:
    """Read train1.txt, val1.txt and test1.txt (the first of ten folds) in `dtd/labels/`.

    A line is "banded/banded_0002.jpg".

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    lists = downloads.find(*(f"labels/{split_name}1.txt" for split_name in ("train", "val", "test")))
    root = lists[0].parents[1] / "images"
    found = dict(zip(("train", "validation", "test"), map(_lines, lists), strict=True))
    return _label_by_folder(root, found)


def pets(downloads: DownloadDir) -> SourceData:
    """Read trainval.txt and test.txt in `annotations/`.

    A line is "Abyssinian_100 1 1 1": name, class from 1, species, breed.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    lists = downloads.find("annotations/trainval.txt", "annotations/test.txt")
    (first,) = downloads.find(f"images/{_lines(lists[0])[0].split()[0]}.jpg")
    splits, classes = {}, {}
    for split_name, file in zip(("train", "test"), lists, strict=True):
        rows = [line.split() for line in _lines(file)]
        labels = [int(row[1]) - 1 for row in rows]
        classes.update({label: row[0].rsplit("_", 1)[0] for label, row in zip(labels, rows, strict=True)})
        splits[split_name] = records_from_files(first.parent, [f"{row[0]}.jpg" for row in rows], labels)
    return SourceData(tuple(classes[label] for label in sorted(classes)), splits)


def sun397(downloads: DownloadDir) -> SourceData:
    """Read `SUN397/a/abbey/sun_x.jpg`, and sun397_tfds_tr.txt, _va.txt and _te.txt.

    A line is "/a/abbey/sun_x.jpg".

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    root, *lists = downloads.find(
        "SUN397/a", *(f"sun397_tfds_{abbreviation}.txt" for abbreviation in ("tr", "va", "te"))
    )
    return _label_by_folder(root.parent, dict(zip(("train", "validation", "test"), map(_lines, lists), strict=True)))


def _label_by_folder(root: Path, found: dict[str, list[str]]) -> SourceData:
    """Return images labeled by their folder below `root`. The key is the line of the list."""
    folders = sorted({_folder(name) for names in found.values() for name in names})
    labels = {folder: label for label, folder in enumerate(folders)}
    splits: dict[str, ImageRecords] = {}
    for split_name, names in found.items():
        paths = [name.lstrip("/") for name in names]
        splits[split_name] = records_from_files(root, paths, [labels[_folder(name)] for name in names], names)
    return SourceData(_class_names(folders), splits)


def _folder(name: str) -> str:
    return name.strip("/").rpartition("/")[0]


def _class_names(folders: Sequence[str]) -> tuple[str, ...]:
    """Return folder names without the leading letter of SUN397: "airport_terminal" for "a/airport_terminal"."""
    return tuple(folder.split("/", 1)[-1] if folder[1:2] == "/" else folder for folder in folders)


def _lines(file: Path) -> list[str]:
    found = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    found = [line for line in found if line and not line.startswith("#")]
    if not found:
        raise DataError(f"{file} is empty; extract or download it again")
    return found
