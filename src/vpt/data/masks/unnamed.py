"""Folders that hold masks by their colors, though the names of folders or files do not pair them with images."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from vpt.data.folders.mask_evidence import is_mask_like
from vpt.data.folders.names import role_of
from vpt.data.images.files import supported_formats
from vpt.data.masks.pair_matching import match_stems

_T = TypeVar("_T")
_Folder = Sequence[str]  # names of its files, which take less memory than paths


@dataclass(frozen=True)
class UnpairedMasks:
    """A folder of masks by its name and colors.

    Args:
        images: Folder of images that it belongs to, relative to the data folder.
        masks: The folder.
        has_same_stems: True if most of its files have the stem of an image.
    """

    images: str
    masks: str
    has_same_stems: bool


def find_unnamed_masks(paths: Sequence[Path]) -> tuple[Path, Path] | None:
    """Return two folders beside each other of which one seems to hold the masks of the other.

    Both hold files of matching stems and sizes; those of one have the few colors of masks, those of the other have not.

    Args:
        paths: Image files.

    Returns:
        The folder of images and that of masks, or None.
    """
    files = _by_folder(paths)
    for first, second in _candidates(files):
        likes = [[is_mask_like(each / name) for name in _sample(sorted(files[each]))] for each in (first, second)]
        if all(likes[0]) and not any(likes[1]):
            first, second = second, first
        elif any(likes[0]) or not all(likes[1]):
            continue
        images, masks = (_by_stem(each, files[each]) for each in (first, second))
        pairs = match_stems(images, masks)
        sampled = _sample(sorted(pairs.items()))
        if len(pairs) == len(masks) and all(_size(images[image]) == _size(masks[mask]) for image, mask in sampled):
            return first, second
    return None


def find_unpaired_masks(paths: Sequence[Path], root: Path) -> list[UnpairedMasks]:
    """Return folders of masks, by their names and colors, that belong to a folder of images, and are not pairs.

    So are masks of single classes: `images/1.png` with `masks/cat/1.png` and `masks/dog/1.png`.

    Args:
        paths: Image files below `root`, in which no pairs were found.
        root: The data folder.

    Returns:
        The folders; none if these are no masks.
    """
    files, of_role = _by_folder(paths), defaultdict[str | None, list[Path]](list)
    for folder in files:
        roles = [role for role in map(role_of, folder.relative_to(root).parts) if role is not None]
        of_role[roles[-1] if roles else None].append(folder)
    found: list[UnpairedMasks] = []
    if not of_role["mask"]:
        return found
    of_stem = {folder: _by_stem(folder, names) for folder, names in files.items()}
    for folder in of_role["mask"]:
        for beside in (*of_role["image"], *of_role[None]):
            images, masks = of_stem[beside], of_stem[folder]
            shared = sorted(images.keys() & masks.keys())
            has_same_stems = 2 * len(shared) > len(masks)
            if not has_same_stems and beside in of_role[None]:
                continue
            pairs = zip(shared, shared, strict=True) if has_same_stems else zip(images, masks, strict=False)
            sample = [(images[image], masks[mask]) for image, mask in _sample([*pairs])]
            if not has_same_stems and any(_size(image) != _size(mask) for image, mask in sample):
                continue  # flat pictures of a class, such as logos
            if all(is_mask_like(mask) and not is_mask_like(image) for image, mask in sample):
                names = [each.relative_to(root).as_posix() for each in (beside, folder)]
                found.append(UnpairedMasks(names[0], names[1], has_same_stems))
                break
    return found


def _by_folder(paths: Sequence[Path]) -> dict[Path, _Folder]:
    found: defaultdict[Path, list[str]] = defaultdict(list)
    for path in paths:
        found[path.parent].append(path.name)
    return dict(found)


def _by_stem(folder: Path, names: _Folder) -> dict[str, Path]:
    return {path.stem: path for path in (folder / name for name in names)}


def _candidates(files: Mapping[Path, _Folder]) -> Iterator[tuple[Path, Path]]:
    """Yield two folders beside each other that alone hold the same stems, or that alone hold images, as many each."""
    beside: defaultdict[Path, list[Path]] = defaultdict(list)
    for folder in files:
        beside[folder.parent].append(folder)
    for folders in beside.values():
        if len(folders) == 2:
            if len(files[folders[0]]) == len(files[folders[1]]):
                yield folders[0], folders[1]
            continue
        of_size: defaultdict[int, list[Path]] = defaultdict(list)
        for folder in folders:
            of_size[len(files[folder])].append(folder)
        for alike in of_size.values():
            same: defaultdict[frozenset[str], list[Path]] = defaultdict(list)
            for folder in alike if len(alike) > 1 else ():
                same[frozenset(_by_stem(folder, files[folder]))].append(folder)
            yield from ((found[0], found[1]) for found in same.values() if len(found) == 2)


def _sample(items: Sequence[_T]) -> Sequence[_T]:
    return items[:: max(1, len(items) // 4)]


def _size(path: Path) -> tuple[int, ...]:
    with Image.open(path, formats=supported_formats()) as image:
        return tuple(sorted(image.size))
