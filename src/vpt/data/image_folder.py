"""A folder of class folders: `cat/1.jpg, dog/2.jpg`, or the same inside `train/`, `val/` and `test/`.

Class folders may hold folders, to any depth. Every file is either an image by its suffix, or hidden, or named
in `Dataset.ignored`: nothing is passed over in silence.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import NoReturn

import numpy as np

from vpt.core.text import lines, listed, number
from vpt.data.classes import check_classes
from vpt.data.dataset import Dataset, Split
from vpt.data.image_files import SUFFIXES
from vpt.errors import DataError

SHAPE = (
    "a data folder holds one folder of images for each class (cat/1.jpg, dog/1.jpg), "
    "or the same inside train/, val/ and test/ (val and test may be left out), "
    "or train.txt and test.txt with lines 'relative/path label'"
)

_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}  # written by systems, not by people


def read_folder(root: Path) -> Dataset:
    """Read the class folders in `root`; val and test are empty where `root` has no such folders.

    Classes are the folders of train in alphabetical order, as torchvision's ImageFolder numbers them.
    Raises DataError for a folder of another shape, see `SHAPE`, and for classes that do not fit together.
    """
    parts, ignored = _parts(root)
    found = {part: _classes(part, folder, root, ignored) for part, folder in parts.items()}
    counts = {part: {name: len(paths) for name, paths in by_class.items()} for part, by_class in found.items()}
    check_classes(root, counts)
    classes = tuple(sorted(found["train"]))
    return Dataset(
        name=root.resolve().name,
        classes=classes,
        train=_split(found["train"], classes, root),
        val=_split(found.get("val", {}), classes, root),
        test=_split(found.get("test", {}), classes, root),
        source=f"class folders {root}" + (f" ({', '.join(parts)})" if len(parts) > 1 else ""),
        ignored=tuple(sorted(ignored)),
    )


def _parts(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Which folder holds the class folders of each part, and what else lies in `root`."""
    folders = _subfolders(root)
    if not folders:
        _refuse_without_classes(root)
    named: defaultdict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        if folder.name.casefold() in _PARTS:
            named[_PARTS[folder.name.casefold()]].append(folder)
    all_named = sum(map(len, named.values())) == len(folders)
    if all_named and "train" not in named:
        raise DataError(f"{root} holds {listed([f.name for f in folders])} but no train; {SHAPE}")
    # A class may be called "train" (car, plane, train): it holds images, and neither val nor test stands by.
    by_part = "train" in named and (len(named) > 1 or all_named or any(map(_subfolders, named["train"])))
    if not by_part:
        return {"train": root}, []
    for part, candidates in named.items():
        if len(candidates) > 1:
            raise DataError(f"{root} holds {listed([f.name for f in candidates])}; keep one folder for {part}")
    stray = [f"{folder.name}/" for folder in folders if folder.name.casefold() not in _PARTS]
    stray += [entry.name for entry in _visible(root) if not entry.is_dir()]
    return {part: named[part][0] for part in ("train", "val", "test") if part in named}, stray


def _classes(part: str, folder: Path, root: Path, ignored: list[str]) -> dict[str, list[Path]]:
    """Class name -> its images, all under `folder`."""
    folders = _subfolders(folder)
    if not folders:
        _refuse_without_classes(folder)
    if all((inner / "train").is_dir() for inner in folders):
        inside = listed([str(inner) for inner in folders])
        raise DataError(f"{folder} holds whole data sets rather than classes; give the path of one of them: {inside}")
    ignored += [str(entry.relative_to(root)) for entry in _visible(folder) if not entry.is_dir()]
    unreadable = [inner.name for inner in folders if not _is_text(inner.name)]
    if unreadable:
        raise DataError(
            f"{folder}: the names of {listed([repr(name) for name in unreadable])} are no UTF-8; rename them"
        )
    images: defaultdict[str, list[Path]] = defaultdict(list)
    for inner in folders:
        # macOS takes é apart into two characters; the class is the same one
        images[unicodedata.normalize("NFC", inner.name)] += _images(inner, root, ignored)
    empty = [name for name, paths in images.items() if not paths]
    if len(empty) == len(images) or (empty and part == "train"):
        named = lines([repr(name) for name in empty])
        raise DataError(
            f"{folder}: {number(len(empty), 'class folder')} without any image:{named}\n"
            f"add images or delete the folder; images are files that end in {', '.join(sorted(SUFFIXES))}"
        )
    return {name: paths for name, paths in images.items() if paths}


def _images(folder: Path, root: Path, ignored: list[str]) -> list[Path]:
    """All images below `folder`, sorted. Links are followed, each real folder once, so loops end."""
    images = []
    seen = set()
    for place, inner, names in os.walk(folder, followlinks=True, onerror=_unreadable):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            ignored.append(f"{Path(place).relative_to(root)}/ (a link to a folder already read)")
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        runs = [name for name in inner if is_run_folder(Path(place, name))]
        ignored += [f"{Path(place, name).relative_to(root)}/ (left by vpt tune)" for name in runs]
        inner[:] = sorted(name for name in inner if not _hidden(name) and name not in runs)
        for name in names:
            path = Path(place, name)
            if path.suffix.casefold() in SUFFIXES and not _hidden(name):
                images.append(path)
            elif not _hidden(name):
                ignored.append(str(path.relative_to(root)))
    return sorted(images)


def _split(by_class: dict[str, list[Path]], classes: tuple[str, ...], root: Path) -> Split:
    chosen = [(path, label) for label, name in enumerate(classes) for path in by_class.get(name, ())]
    return Split(
        images=tuple(path for path, _ in chosen),
        labels=np.array([label for _, label in chosen], dtype=np.int64),
        names=tuple(path.relative_to(root).as_posix() for path, _ in chosen),
    )


def _refuse_without_classes(folder: Path) -> NoReturn:
    images = [entry.name for entry in _visible(folder) if entry.suffix.casefold() in SUFFIXES]
    if images:
        raise DataError(
            f"{folder} holds {number(len(images), 'image')} ({listed(images, 3)}) but no class folders, "
            f"so no image has a label; {SHAPE}"
        )
    raise DataError(f"{folder} holds no class folders and no images; {SHAPE}")


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not _hidden(entry.name))
    except OSError as error:
        _unreadable(error)


def _subfolders(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if entry.is_dir() and not is_run_folder(entry)]


def is_run_folder(folder: Path) -> bool:
    """Whether `vpt tune` made it, beside a tuned file: its pictures are no images to learn from."""
    return folder.suffix == ".run" and (folder / "job.json").is_file()


def _is_text(name: str) -> bool:
    """False for bytes that are no UTF-8, which the system hands over as surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _CLUTTER


def _unreadable(error: OSError) -> NoReturn:
    raise DataError(f"the folder {error.filename} cannot be read: {error.strerror}; correct its permissions")
