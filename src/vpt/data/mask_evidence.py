"""What tells masks from photographs: names of files, and few colors."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vpt.data.folder_names import own_words, role_of
from vpt.data.image_files import has_deep_pixels, supported_formats
from vpt.data.mask_files import LOSSY_FORMATS

_MAX_MASK_COLORS, _LOSSY_LEVELS, _LOSSY_RADIUS, _LOSSY_SHARE = 32, 4, 8, 0.97


def is_mask_like(path: Path) -> bool:
    """Return True if an image has the few colors of a mask.

    Args:
        path: The image file.

    Returns:
        False for a file that cannot be read, too.
    """
    try:
        with Image.open(path, formats=supported_formats()) as image:
            if image.mode in ("P", "1"):
                return True
            if has_deep_pixels(image):  # of which few colors would be left in RGB
                return len(np.unique(np.asarray(image))) <= _MAX_MASK_COLORS
            is_lossy = image.format in LOSSY_FORMATS
            if not is_lossy:
                return image.convert("RGB").getcolors(_MAX_MASK_COLORS) is not None
            counts = np.array(image.convert("L").histogram())
    except Exception:  # Pillow raises any kind of error on damaged files; decoding reports it
        return False
    covered, total = 0, counts.sum()
    for _ in range(_LOSSY_LEVELS):
        level = int(counts.argmax())
        around = slice(max(0, level - _LOSSY_RADIUS), level + _LOSSY_RADIUS + 1)
        covered += counts[around].sum()
        counts[around] = 0
    return bool(covered >= _LOSSY_SHARE * total)


def drop_masks(paths: Sequence[Path]) -> tuple[Sequence[Path], list[Path]]:
    """Separate masks that lie beside their images, such as `1_mask.png` beside `1.png`.

    Args:
        paths: Image files.

    Returns:
        The images, and the masks: files named so that have the few colors of a mask, and whose image has not.
    """
    named = [path for path in paths if role_of(path.stem) == "mask"]
    beside: defaultdict[Path, dict[str, Path]] = defaultdict(dict)
    for path in paths if named else ():
        beside[path.parent][path.stem] = path
    masks = []
    for path in named:
        key = image_stem(path.stem, beside[path.parent])
        if key is not None and is_mask_like(path) and not is_mask_like(beside[path.parent][key]):
            masks.append(path)
    dropped = set(masks)
    return [path for path in paths if path not in dropped] if masks else paths, masks


def image_stem(stem: str, stems: Collection[str]) -> str | None:
    """Return the stem of the image that a mask is named after, such as "1" for "1_mask", "mask_1" or "1_mask_2".

    Args:
        stem: Stem of the mask.
        stems: Stems of the images.

    Returns:
        The stem, or None if no image has it.
    """
    for length in range(len(stem) - 1, 0, -1):
        for key, affix in ((stem[:length], stem[length:]), (stem[-length:], stem[:-length])):
            if key in stems and role_of(affix) == "mask" and all(word.isdigit() for word in own_words(affix)):
                return key
    return None


def find_unnamed_masks(paths: Sequence[Path]) -> tuple[Path, Path] | None:
    """Return two folders beside each other of which one seems to hold the masks of the other.

    Both hold files of the same stems and sizes; those of one have the few colors of masks, those of the other have not.

    Args:
        paths: Image files.

    Returns:
        The folder of images and that of masks, or None.
    """
    stems_in: defaultdict[Path, set[str]] = defaultdict(set)
    for path in paths:
        stems_in[path.parent].add(path.stem)
    beside: defaultdict[tuple[Path, frozenset[str]], list[Path]] = defaultdict(list)
    for folder, names in stems_in.items():
        beside[folder.parent, frozenset(names)].append(folder)
    for (_, shared), folders in beside.items():
        if len(folders) != 2:
            continue
        sampled = sorted(shared)[:: max(1, len(shared) // 4)]
        stems = {folder: {path.stem: path for path in paths if path.parent == folder} for folder in folders}
        likes = [[is_mask_like(stems[folder][name]) for name in sampled] for folder in folders]
        first, second = folders
        if all(likes[0]) and not any(likes[1]):
            first, second = second, first
        elif any(likes[0]) or not all(likes[1]):
            continue
        if all(len({_stored_size(stems[folder][name]) for folder in folders}) == 1 for name in sampled):
            return first, second
    return None


def find_unpaired_masks(paths: Sequence[Path], root: Path) -> list[str]:
    """Return folders of masks, by their names and colors, that share stems with a folder of images, and are not pairs.

    So are masks of single classes: `images/1.png` with `masks/cat/1.png` and `masks/dog/1.png`.

    Args:
        paths: Image files below `root`, in which no pairs were found.
        root: The data folder.

    Returns:
        The folders, relative to `root`; none if these are no masks.
    """
    stems: dict[str, defaultdict[Path, dict[str, Path]]] = {role: defaultdict(dict) for role in ("image", "mask")}
    for path in paths:
        roles = [role for role in map(role_of, path.relative_to(root).parent.parts) if role is not None]
        if roles:
            stems[roles[-1]][path.parent][path.stem] = path
    found = []
    for folder, masks in stems["mask"].items():
        for images in stems["image"].values():
            shared = sorted(images.keys() & masks.keys())
            sampled = shared[:: max(1, len(shared) // 4)]
            if (
                2 * len(shared) > len(masks)
                and all(is_mask_like(masks[name]) for name in sampled)
                and not any(is_mask_like(images[name]) for name in sampled)
            ):
                found.append(folder.relative_to(root).as_posix())
                break
    return found


def _stored_size(path: Path) -> tuple[int, ...]:
    with Image.open(path, formats=supported_formats()) as image:
        return tuple(sorted(image.size))
