"""Folders of class folders: `cat/1.jpg, dog/2.jpg`, or the same inside `train/`, `val/` and `test/`.

Class folders may be nested to any depth. Every file is an image by its suffix, is hidden, or is listed in
`Dataset.ignored`.
"""

import os
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import NoReturn

from vpt.core.text import bullets, comma_list, pluralize
from vpt.data.checks import check_classes
from vpt.data.dataset import Dataset, Split
from vpt.data.image_files import IMAGE_SUFFIXES
from vpt.errors import DataError

LAYOUT_HELP = (
    "a data folder holds one folder of images for each class (cat/1.jpg, dog/1.jpg), "
    "or the same inside train/, val/ and test/ (val and test may be left out), "
    "or train.txt and test.txt with lines 'relative/path label'"
)

_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}


def read_image_folder(root: Path) -> Dataset:
    """Read a folder of class folders, see `LAYOUT_HELP`.

    Classes are the folders of train in alphabetical order, as in torchvision's ImageFolder. Folders with another layout
    raise DataError.

    Args:
        root: The data folder.

    Returns:
        The dataset. val and test are empty if `root` has no such folders.
    """
    split_folders, ignored = _find_splits(root)
    found = {name: _find_classes(name, folder, root, ignored) for name, folder in split_folders.items()}
    check_classes(root, {name: {k: len(paths) for k, paths in by_class.items()} for name, by_class in found.items()})
    classes = tuple(sorted(found["train"]))
    train, val, test = (_split(found.get(name, {}), classes, root) for name in ("train", "val", "test"))
    source = f"class folders {root}" + (f" ({', '.join(split_folders)})" if len(split_folders) > 1 else "")
    return Dataset(root.resolve().name, classes, train, val, test, source, ignored=tuple(sorted(ignored)))


def _find_splits(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each split, and the names of the other entries of `root`."""
    folders = _class_folders(root)
    named: defaultdict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        named[_SPLIT_NAMES.get(folder.name.casefold(), "")].append(folder)
    others = named.pop("", [])
    if not others and "train" not in named:
        raise DataError(f"{root} holds {comma_list([f.name for f in folders])} but no train; {LAYOUT_HELP}")
    # "train" can be a class (car, plane, train): then it contains images, and there is no val or test.
    if "train" not in named or not (len(named) > 1 or not others or any(map(_subfolders, named["train"]))):
        return {"train": root}, []
    for split_name, candidates in named.items():
        if len(candidates) > 1:
            names = comma_list([folder.name for folder in candidates])
            raise DataError(f"{root} holds {names}; keep one folder for {split_name}")
    ignored = [f"{folder.name}/" for folder in others]
    ignored += [entry.name for entry in _visible_entries(root) if not entry.is_dir()]
    return {name: named[name][0] for name in ("train", "val", "test") if name in named}, ignored


def _find_classes(split_name: str, folder: Path, root: Path, ignored: list[str]) -> dict[str, list[Path]]:
    """Return class name to images, all below `folder`."""
    folders = _class_folders(folder)
    if all((class_folder / "train").is_dir() for class_folder in folders):
        inside = comma_list(list(map(str, folders)))
        raise DataError(f"{folder} contains whole datasets instead of classes; give the path of one of them: {inside}")
    ignored += [str(entry.relative_to(root)) for entry in _visible_entries(folder) if not entry.is_dir()]
    unreadable = [repr(class_folder.name) for class_folder in folders if not _is_valid_utf8(class_folder.name)]
    if unreadable:
        raise DataError(f"{folder}: the names {comma_list(unreadable)} are not valid UTF-8; rename them")
    images: defaultdict[str, list[Path]] = defaultdict(list)
    for class_folder in folders:
        # macOS stores é as two characters; both forms name the same class
        images[unicodedata.normalize("NFC", class_folder.name)] += _find_images(class_folder, root, ignored)
    empty = [name for name, paths in images.items() if not paths]
    if len(empty) == len(images) or (empty and split_name == "train"):
        listing = bullets(list(map(repr, empty)))
        raise DataError(
            f"{folder}: {pluralize(len(empty), 'class folder')} without any image:{listing}\n"
            f"add images or delete the folder; images are files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return {name: paths for name, paths in images.items() if paths}


def _find_images(folder: Path, root: Path, ignored: list[str]) -> list[Path]:
    """Return all images below `folder`, sorted. Each folder is visited once, so that loops of links end."""
    images, seen = [], set()
    for current, subfolders, names in os.walk(folder, followlinks=True, onerror=_raise_unreadable):
        here = Path(current)
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen:
            ignored.append(f"{here.relative_to(root)}/ (a link to a folder already read)")
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        runs = [name for name in subfolders if is_run_directory(here / name)]
        ignored += [f"{(here / name).relative_to(root)}/ (written by vpt tune)" for name in runs]
        subfolders[:] = sorted(name for name in subfolders if not _is_hidden(name) and name not in runs)
        for path in (here / name for name in names if not _is_hidden(name)):
            if path.suffix.casefold() in IMAGE_SUFFIXES:
                images.append(path)
            else:
                ignored.append(str(path.relative_to(root)))
    return sorted(images)


def _split(by_class: dict[str, list[Path]], classes: tuple[str, ...], root: Path) -> Split:
    paths = [path for name in classes for path in by_class.get(name, ())]
    labels = [label for label, name in enumerate(classes) for _ in by_class.get(name, ())]
    return Split.of_files(root, [path.relative_to(root).as_posix() for path in paths], labels)


def _class_folders(folder: Path) -> list[Path]:
    """Return the subfolders. A folder without any raises DataError."""
    folders = _subfolders(folder)
    if not folders:
        images = [entry.name for entry in _visible_entries(folder) if entry.suffix.casefold() in IMAGE_SUFFIXES]
        if images:
            raise DataError(
                f"{folder} holds {pluralize(len(images), 'image')} ({comma_list(images, 3)}) but no class folders, "
                f"so no image has a label; {LAYOUT_HELP}"
            )
        raise DataError(f"{folder} holds no class folders and no images; {LAYOUT_HELP}")
    return folders


def _visible_entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not _is_hidden(entry.name))
    except OSError as error:
        _raise_unreadable(error)


def _subfolders(folder: Path) -> list[Path]:
    return [entry for entry in _visible_entries(folder) if entry.is_dir() and not is_run_directory(entry)]


def is_run_directory(folder: Path) -> bool:
    """Return True for a run directory of `vpt tune`, whose plots are not training images.

    Args:
        folder: The folder to check.

    Returns:
        True if the folder is a run directory.
    """
    return folder.suffix == ".run" and (folder / "job.json").is_file()


def _is_valid_utf8(name: str) -> bool:
    """Return False for names that are not valid UTF-8. Python represents their bytes as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _SYSTEM_FILES


def _raise_unreadable(error: OSError) -> NoReturn:
    raise DataError(f"the folder {error.filename} cannot be read: {error.strerror}; correct its permissions")
