"""Labels in files of other programs (COCO, LabelMe, VOC, CVAT, YOLO, spreadsheets), which are recognized, not read."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from vpt.core.text import comma_list
from vpt.data.folders.walk import subfolders, visible_entries

_HEAD = 2**16  # bytes that tell what a file holds
_SUFFIXES = (".json", ".xml", ".txt", ".xlsx", ".xls", ".ods")
_YOLO_LINE = re.compile(r"\d+( -?\d*\.?\d+){4,}")
_NUM_TRIED = 20  # files of a folder that are looked at, and images whose neighbors are
_DEPTH = 2  # folders below the data folder

ADVICE = (
    "write a table of the images and their classes, labels.csv with the columns image and label, or, to learn regions, "
    "masks of one number a pixel"
)


def describe_foreign_labels(root: Path) -> str:
    """Return which files below a folder hold labels that are not read, and what to do.

    Args:
        root: The data folder.

    Returns:
        A text, or "" without such files.
    """
    for folder in _folders(root, _DEPTH):
        files = (path for path in visible_entries(folder) if path.suffix.casefold() in _SUFFIXES and path.is_file())
        for path in islice(files, _NUM_TRIED):
            if (kind := _kind_of(path)) is not None:
                return f"{path.relative_to(root).as_posix()} holds {kind}, which is not read; {ADVICE}"
    return ""


def find_sidecars(images: Sequence[Path]) -> list[Path]:
    """Return annotations beside images, of the same names.

    Args:
        images: The images.

    Returns:
        The files, of some of the images; none if most of these have none.
    """
    tried = images[:: max(1, len(images) // _NUM_TRIED)]
    beside = [path for image in tried for suffix in (".json", ".xml", ".txt") if (path := image.with_suffix(suffix))]
    found = [path for path in beside if path.is_file() and _kind_of(path) is not None]
    return found if 2 * len(found) > len(tried) else []


def describe_sidecars(root: Path, sidecars: Sequence[Path]) -> str:
    """Return what annotations beside images are, and what to do.

    Args:
        root: The data folder.
        sidecars: What `find_sidecars` returned, at least one.

    Returns:
        A text.
    """
    names = comma_list([path.relative_to(root).as_posix() for path in sidecars], 3)
    return (
        f"{root} holds {_kind_of(sidecars[0])} beside its images ({names}), which is not read; {ADVICE}; or read the "
        "folders as classes with --task classification"
    )


def _folders(root: Path, depth: int) -> Iterator[Path]:
    yield root
    for folder in subfolders(root) if depth else ():
        yield from _folders(folder, depth - 1)


def _kind_of(path: Path) -> str | None:
    """Return the kind of labels in a file, or None."""
    suffix, name = path.suffix.casefold(), path.name.casefold()
    if suffix in (".xlsx", ".xls", ".ods"):
        return "a spreadsheet"
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", "replace")
    except OSError:
        return None
    if suffix == ".xml":
        kinds = {"<annotations": "annotations of CVAT", "<annotation": "an annotation of PASCAL VOC"}
        return next((kind for start, kind in kinds.items() if start in head), None)
    if suffix == ".txt":
        lines = head.splitlines()
        return "boxes of YOLO" if lines and all(_YOLO_LINE.fullmatch(line.strip()) for line in lines[:5]) else None
    keys = {
        '"shapes"': "annotations of LabelMe",
        '"_via_': "annotations of VIA",
        '"regions"': "annotations of VIA",
        '"categories"': "annotations of COCO",
        '"annotations"': "annotations of COCO",
    }
    if "coco" in name or name.startswith("instances"):
        return "annotations of COCO"
    known = next((kind for key, kind in keys.items() if key in head), None)
    return known or ("labels in JSON" if re.match(r"labels?|annotations?|classes", name) else None)
