"""Masks: schemes that give their ids a meaning, as public datasets define them; decoding, checks and pixel counts."""

import hashlib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from vpt.data.image_files import UnreadableImageError, open_rgb, supported_formats
from vpt.data.images import map_images
from vpt.data.segmentation_layouts import ImageMaskPairs

IGNORE_INDEX = 255  # label of pixels without a class


@dataclass(frozen=True)
class LabelScheme:
    """A mapping of mask ids to classes.

    Args:
        classes: Name of each class. Default: unknown, to be counted in the masks.
        ignore_ids: Ids of pixels without a class. Default: 255.
        ids: Id of each class, if they differ. All other ids that are not ignored are faults.
        reduce_zero_label: Id 0 is ignored, and class k has the id k + 1. Default: False.
    """

    classes: tuple[str, ...] = ()
    ignore_ids: tuple[int, ...] = (IGNORE_INDEX,)
    ids: tuple[int, ...] = ()
    reduce_zero_label: bool = False

    def lookup_table(self, num_classes: int) -> NDArray[np.int16]:
        """Return the class of every id.

        Args:
            num_classes: Number of classes.

        Returns:
            int16 (65536,): the class, IGNORE_INDEX if ignored, -1 for unknown ids.
        """
        table = np.full(65536, -1, dtype=np.int16)
        if self.reduce_zero_label:
            table[0] = IGNORE_INDEX
        ids = self.ids or range(int(self.reduce_zero_label), num_classes + int(self.reduce_zero_label))
        table[list(ids)] = np.arange(len(ids))
        table[list(self.ignore_ids)] = IGNORE_INDEX  # last, because it takes precedence
        return table


LABEL_SCHEMES: Mapping[str, LabelScheme] = TypeAdapter(dict[str, LabelScheme]).validate_python(
    tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
)


def palette(num_classes: int) -> NDArray[np.uint8]:
    """Return the colors of PASCAL VOC, which spread the bits of the class over red, green and blue.

    Args:
        num_classes: Number of classes.

    Returns:
        uint8 (num_classes, 3).
    """
    bits = (np.arange(num_classes)[:, None] >> np.arange(24)) & 1  # (classes, 8 bits x 3 channels)
    colors: NDArray[np.uint8] = (bits.reshape(-1, 8, 3) << np.arange(7, -1, -1)[:, None]).sum(axis=1).astype(np.uint8)
    return colors


@dataclass(frozen=True)
class MaskStats:
    """Ids of a mask.

    Args:
        ids: Distinct ids, sorted.
        counts: Number of pixels of each id.
        key: Shape and hash of the mask.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    key: str


def load_pair(
    pairs: ImageMaskPairs, index: int, lookup_table: NDArray[np.int16]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image and its mask. Call it inside `capture_warnings`.

    Args:
        pairs: Image and mask files.
        index: Index of the pair.
        lookup_table: int16 (65536,), id to class, see `LabelScheme.lookup_table`.

    Returns:
        The image, uint8 (3, height, width), and its classes, uint8 (height, width), IGNORE_INDEX for no class.
    """
    image, _ = open_rgb(pairs.images[index])
    mask = lookup_table[read_mask(pairs.masks[index])].astype(np.uint8)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)), mask


def read_mask(path: Path) -> NDArray[np.int64]:
    """Return the ids in a palette or gray image of 8 or 16 bits.

    Args:
        path: The mask file.

    Returns:
        int64 (height, width).

    Raises:
        UnreadableImageError: The file is not a mask.
    """
    if not path.is_file():  # opening a pipe blocks
        raise UnreadableImageError("not a regular file")
    try:
        with Image.open(path, formats=supported_formats()) as image:
            mode, ids = image.mode, np.asarray(image).astype(np.int64)
    except Exception as error:  # Pillow raises any kind of error on damaged files
        raise UnreadableImageError(f"a mask that cannot be read: {error}") from error
    if mode not in ("P", "L", "1", "I", "I;16"):
        raise UnreadableImageError(f"a mask of mode {mode}; save it with one number per pixel (index or gray PNG)")
    if ids.min() < 0 or ids.max() > 65535:
        raise UnreadableImageError(f"a mask with ids from {ids.min()} to {ids.max()}, outside 0 to 65535")
    return ids


def scan_masks(
    splits: Iterable[ImageMaskPairs], faults: list[str], progress: Callable[[int, int], None] | None
) -> dict[str, MaskStats]:
    """Decode all images and masks once.

    Args:
        splits: Pairs of each split.
        faults: Receives the images and masks that cannot be used.
        progress: Called as (done, total) after each pair.

    Returns:
        Name of the pair to the ids of its mask.
    """

    def scan_pair(pair: tuple[str, Path, Path]) -> MaskStats | str:
        name, image_path, mask_path = pair
        try:
            image, _ = open_rgb(image_path)
            ids = read_mask(mask_path)
        except UnreadableImageError as error:
            return f"{name}: {error}"
        if image.size != ids.shape[::-1]:
            return f"{name}: the image has {image.width} x {image.height} px, its mask {ids.shape[1]} x {ids.shape[0]}"
        values, counts = np.unique(ids, return_counts=True)
        return MaskStats(values, counts, f"{ids.shape} {hashlib.sha256(ids.tobytes()).hexdigest()}")

    scanned = [pair for pairs in splits for pair in zip(pairs.names, pairs.images, pairs.masks, strict=True)]
    mask_stats: dict[str, MaskStats] = {}
    for (name, _, _), stats in zip(scanned, map_images(scan_pair, scanned, progress), strict=True):
        if isinstance(stats, str):
            faults.append(stats)
        else:
            mask_stats[name] = stats
    return mask_stats
