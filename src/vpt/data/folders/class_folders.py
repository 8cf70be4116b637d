"""Folders of class folders: `cat/1.jpg, dog/2.jpg`, or the same inside folders of splits, or splits inside the classes.

Class folders may be nested to any depth. Every file is an image by its suffix, is hidden, or is listed in
`Dataset.ignored`.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from vpt.core.text import bullets, comma_list, pluralize
from vpt.data.checks import check_classes
from vpt.data.dataset import Dataset, Split
from vpt.data.folders.mask_evidence import drop_masks
from vpt.data.folders.names import (
    SPLITS,
    describe_split_names,
    find_split_names,
    is_wrapper,
    parse_split_names,
    refuse_names_of_no_class,
    split_words,
)
from vpt.data.folders.walk import describe_foreign, image_entries, is_folder, subfolders, visible_entries, walk_images
from vpt.data.images.file_paths import FilePaths
from vpt.data.images.files import IMAGE_SUFFIXES
from vpt.errors import DataError

LAYOUT_HELP = (
    "a data folder holds one folder of images for each class (cat/1.jpg, dog/1.jpg), "
    "or the same inside train/, val/ and test/ (val and test may be left out, other names are given by --split-names), "
    "or labels.csv (.jsonl, .parquet) with the columns image and label, "
    "or train.txt and test.txt with lines 'relative/path label'"
)
_MIN_SHARED = 2  # names of sub-folders that different classes do not share by chance

ClassImages = dict[str, Sequence[Path]]


def read_image_folder(root: Path, split_names: str | None = None) -> Dataset:
    """Read a folder of class folders, see `LAYOUT_HELP`.

    Classes are the folders of train in alphabetical order, as in torchvision's ImageFolder. Folders with another layout
    raise DataError.

    Args:
        root: The data folder.
        split_names: Names of the split folders, see `parse_split_names`. Default: recognized.

    Returns:
        The dataset. val and test are empty if `root` has no such folders.
    """
    found, ignored = find_images_by_class(root, split_names)
    if "train" not in found:
        names = comma_list([folder.name for folder in subfolders(root)])
        raise DataError(f"{root} holds {names} but no train; {LAYOUT_HELP}")
    check_classes(root, {name: {k: len(paths) for k, paths in by_class.items()} for name, by_class in found.items()})
    classes = tuple(sorted(found["train"]))
    train, val, test = (make_split(found.get(name, {}), classes, root) for name in SPLITS)
    source = f"class folders {root}" + (f" ({', '.join(found)})" if len(found) > 1 else "")
    return Dataset(root.resolve().name, classes, train, val, test, source, ignored=tuple(sorted(ignored)))


def find_images_by_class(root: Path, split_names: str | None = None) -> tuple[dict[str, ClassImages], list[str]]:
    """Return the images of a folder by split and class. Folders with another layout raise DataError.

    Args:
        root: The data folder.
        split_names: Names of the split folders, see `parse_split_names`. Default: recognized.

    Returns:
        Split to class to images, where images without a split are those of "train"; and the entries of no use.
    """
    ignored: list[str] = []
    root_folders = _class_folders(_unwrap(root))
    by_split = _find_split_folders(root, root_folders, split_names, ignored)
    if by_split is not None:
        for name, folder in by_split.items():
            flat = [] if name == "train" or subfolders(folder) else image_entries(folder)
            if flat and "train" in by_split:
                raise DataError(
                    f"{folder} holds {pluralize(len(flat), 'image')} but no class folders, so no image has a label to "
                    f"score; leave them out with --split-names train={by_split['train'].name}, and give them to vpt "
                    "predict, or sort them into class folders"
                )
        found = {name: _find_classes(name, _unwrap(folder, True), root, ignored) for name, folder in by_split.items()}
        return found, ignored
    if split_names is None:
        inside = {folder: find_split_names([entry.name for entry in subfolders(folder)]) for folder in root_folders}
        if all("train" in splits for splits in inside.values()):
            return _find_splits_in_classes(root, inside, ignored), ignored
        _refuse_unnamed_splits(root, root_folders)
        refuse_names_of_no_class(root, [folder.name for folder in root_folders])
    return {"train": _find_classes("train", _unwrap(root), root, ignored)}, ignored


def has_split_folders(root: Path, split_names: str | None) -> bool:
    """Return whether a folder has the folders of splits that are named, in itself or one level down.

    Args:
        root: The data folder.
        split_names: Names of the split folders, see `parse_split_names`.

    Returns:
        True or False; True where none are named.
    """
    named = parse_split_names(split_names) or {}
    parents = [root, *subfolders(root)] if named and is_folder(root) else []  # masks/train lies beside images/train
    return all(any((parent / name).is_dir() for parent in parents) for name in named.values())


def find_class_names(root: Path) -> list[str]:
    """Return the names of the class folders of a folder.

    Args:
        root: The data folder.

    Returns:
        The names, sorted; none of folders with another layout, or with one class.
    """
    try:
        found, _ = find_images_by_class(root)
    except DataError:
        return []
    names = sorted({name for by_class in found.values() for name in by_class})
    return names if len(names) > 1 else []


def make_split(by_class: Mapping[str, Sequence[Path]], classes: tuple[str, ...], root: Path) -> Split:
    """Return the split of images by class.

    Args:
        by_class: Class name to images.
        classes: Names of all classes.
        root: The data folder, which the names of images are relative to.

    Returns:
        The split, one class after the other.
    """
    names = [path.relative_to(root).as_posix() for name in classes for path in by_class.get(name, ())]
    labels = [label for label, name in enumerate(classes) for _ in by_class.get(name, ())]
    return Split.of_files(root, names, labels)


def _find_split_folders(
    root: Path, folders: list[Path], split_names: str | None, ignored: list[str]
) -> dict[str, Path] | None:
    """Return the folder of each split, or None if the folders are classes. Other entries are added to `ignored`."""
    by_name = {folder.name: folder for folder in folders}
    given = parse_split_names(split_names)
    if given == {}:
        return None
    if given is not None:
        missing = [name for name in given.values() if name not in by_name]
        if missing:
            raise DataError(f"{root} holds {comma_list(list(by_name), 10)}, and no {', '.join(missing)} to be a split")
        named = {split: [name] for split, name in given.items()}
    else:
        named = find_split_names(list(by_name))
    used = {name for names in named.values() for name in names}
    others = [name for name in by_name if name not in used]
    # "train" can be a class (car, plane, train): then it holds images, and there is no val or test.
    trains = named.get("train", [])
    are_splits = bool(trains) and (len(named) > 1 or any(subfolders(by_name[name]) for name in trains))
    if not named or (others and given is None and not are_splits):
        return None
    for split, names in named.items():
        if len(names) > 1:
            raise DataError(
                f"{root} holds {comma_list(names)}; keep one folder for {split}, or choose with --split-names"
            )
    parent = by_name[next(iter(used))].parent
    ignored += [f"{by_name[name].relative_to(root)}/" for name in others]
    ignored += [str(entry.relative_to(root)) for entry in visible_entries(parent) if not entry.is_dir()]
    return {split: by_name[named[split][0]] for split in SPLITS if split in named}


def _find_splits_in_classes(
    root: Path, inside: Mapping[Path, Mapping[str, list[str]]], ignored: list[str]
) -> dict[str, ClassImages]:
    """Return the images of folders of classes that hold their splits: `cat/train/1.jpg`."""
    nested = [folder for folder, splits in inside.items() if subfolders(folder / splits["train"][0])]
    if nested:
        inside_text = comma_list(list(map(str, inside)))
        raise DataError(
            f"{root} contains whole datasets instead of classes; give the path of one of them: {inside_text}"
        )
    found: defaultdict[str, ClassImages] = defaultdict(dict)
    for folder, splits in inside.items():
        used = {name for names in splits.values() for name in names}
        unused, images_here = [p for p in visible_entries(folder) if p.name not in used], set(image_entries(folder))
        beside = [path for path in unused if path in images_here or (path.is_dir() and walk_images(path))]
        if beside:
            shown = comma_list([path.name for path in beside])
            raise DataError(
                f"{folder} holds {shown} beside {comma_list(sorted(used))}, and images there are of no split; move "
                "them into one, or read all as classes with --split-names none"
            )
        ignored += [str(path.relative_to(root)) for path in unused]
        for split, names in splits.items():
            walked = (path for name in names for path in walk_images(folder / name, ignored, root))
            images = FilePaths(folder, tuple(path.relative_to(folder).as_posix() for path in walked))
            name = _class_name(folder)
            if images:
                found[split][name] = [*found[split][name], *images] if name in found[split] else images
            elif split == "train":
                raise DataError(f"{folder / names[0]} holds no image; add some, or remove the class {name!r}")
    return {split: found[split] for split in SPLITS if split in found}


def _refuse_unnamed_splits(root: Path, folders: list[Path]) -> None:
    """Refuse classes that all hold the same sub-folders and no image, as splits under unknown names do."""
    names = {folder.name: {entry.name for entry in subfolders(folder)} for folder in folders}
    names = {folder: inside for folder, inside in names.items() if inside}
    if len(names) < 2 or len(names) < len(folders) or any(image_entries(folder) for folder in folders):
        return
    largest = max(names.values(), key=len)
    shared = [len(inside & largest) for inside in names.values()]
    if min(shared) >= _MIN_SHARED and all(2 * count >= len(largest) for count in shared):
        raise DataError(
            f"{root}: the folders {comma_list(list(names))} hold sub-folders of the same names "
            f"({comma_list(sorted(largest))}), as splits do and classes do not; name the splits, such as "
            f"{describe_split_names(names)}, or read the folders as classes with --split-names none"
        )


def _find_classes(split_name: str, folder: Path, root: Path, ignored: list[str]) -> ClassImages:
    """Return class name to images, all below `folder`."""
    folders = _class_folders(folder)
    ignored += [str(entry.relative_to(root)) for entry in visible_entries(folder) if not entry.is_dir()]
    unreadable = [repr(class_folder.name) for class_folder in folders if not _is_valid_utf8(class_folder.name)]
    if unreadable:
        raise DataError(f"{folder}: the names {comma_list(unreadable)} are not valid UTF-8; rename them")
    images: ClassImages = {}
    for class_folder in folders:
        found, masks = drop_masks(walk_images(class_folder, ignored, root))
        name = _class_name(class_folder)
        images[name] = [*images[name], *found] if name in images else found
        ignored += [f"{path.relative_to(root)} (a mask)" for path in masks]
    empty = [name for name, paths in images.items() if not paths]
    if len(empty) == len(images) or (empty and split_name == "train"):
        listing = bullets(list(map(repr, empty)))
        raise DataError(
            f"{folder}: {pluralize(len(empty), 'class folder')} without any image:{listing}\n"
            f"add images or delete the folder; images are files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
            + describe_foreign(ignored)
        )
    return {name: paths for name, paths in images.items() if paths}


def _class_name(folder: Path) -> str:
    return unicodedata.normalize("NFC", folder.name)  # macOS stores é as two characters; both forms name the same class


def _unwrap(folder: Path, in_split: bool = False) -> Path:
    """Return the folder inside, if a folder holds but one that says no more: `seg_train/seg_train/`, `data/images/`."""
    inside = subfolders(folder)
    if len(inside) != 1 or not is_wrapper(inside[0].name) or image_entries(folder) or len(subfolders(inside[0])) < 2:
        return folder
    return folder if split_words(inside[0].name) and not in_split else _unwrap(inside[0], in_split)


def _class_folders(folder: Path) -> list[Path]:
    """Return the subfolders. A folder without any raises DataError."""
    folders = subfolders(folder)
    if not folders:
        images = [entry.name for entry in image_entries(folder)]
        if images:
            raise DataError(
                f"{folder} holds {pluralize(len(images), 'image')} ({comma_list(images, 3)}) but no class folders, "
                f"so no image has a label; {LAYOUT_HELP}"
            )
        raise DataError(f"{folder} holds no class folders and no images; {LAYOUT_HELP}")
    return folders


def _is_valid_utf8(name: str) -> bool:
    """Return False for names that are not valid UTF-8. Python represents their bytes as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
