"""Images with lists in text files: DTD, Oxford pets, SUN397."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared.records import ImageRecords, SourceData, records_from_files
from vpt.errors import DataError


def dtd(downloads: DownloadDir) -> SourceData:
    """`dtd/labels/train1.txt`, val1.txt and test1.txt (the first of ten folds), with lines "banded/banded_0002.jpg"."""
    lists = downloads.find(*(f"labels/{split_name}1.txt" for split_name in ("train", "val", "test")))
    root = lists[0].parents[1] / "images"
    found = dict(zip(("train", "validation", "test"), map(_lines, lists), strict=True))
    return _label_by_folder(root, found)


def pets(downloads: DownloadDir) -> SourceData:
    """`annotations/trainval.txt` and test.txt with lines "Abyssinian_100 1 1 1": name, class from 1, species, breed."""
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
    """`SUN397/a/abbey/sun_x.jpg`, and lists sun397_tfds_tr.txt, _va.txt and _te.txt with lines "/a/abbey/sun_x.jpg"."""
    root, *lists = downloads.find(
        "SUN397/a", *(f"sun397_tfds_{abbreviation}.txt" for abbreviation in ("tr", "va", "te"))
    )
    return _label_by_folder(root.parent, dict(zip(("train", "validation", "test"), map(_lines, lists), strict=True)))


def _label_by_folder(root: Path, found: dict[str, list[str]]) -> SourceData:
    """The label is the folder of an image, below `root`; the key is the line as it stands."""
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
    """ "a/airport_terminal" and "banded" without the letter that SUN397 files them under."""
    return tuple(folder.split("/", 1)[-1] if folder[1:2] == "/" else folder for folder in folders)


def _lines(file: Path) -> list[str]:
    found = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    found = [line for line in found if line and not line.startswith("#")]
    if not found:
        raise DataError(f"{file} is empty; unpack or download it again")
    return found
