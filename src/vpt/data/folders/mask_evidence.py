"""What tells masks from photographs: names of files, and few colors."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vpt.data.folders.names import own_words, role_of
from vpt.data.images.files import LOSSY_FORMATS, has_deep_pixels, supported_formats

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
