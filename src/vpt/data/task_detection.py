"""Detection of the task that a data folder is for."""

from pathlib import Path
from typing import Literal

from vpt.core.text import comma_list
from vpt.data.folders.mask_evidence import is_mask_like
from vpt.data.folders.walk import walk_images
from vpt.data.masks.pairs import PairNames, find_pairs
from vpt.data.masks.unnamed import find_unnamed_masks, find_unpaired_masks
from vpt.data.tables.foreign_labels import describe_sidecars, find_sidecars
from vpt.data.tables.listings import is_listing
from vpt.errors import DataError

_NUM_SAMPLES = 5


def detect_task(root: Path, names: PairNames | None = None) -> Literal["classification", "segmentation"]:
    """Return the task of a data folder: segmentation if it holds masks.

    Args:
        root: The data folder.
        names: Names of its folders that a user gives. Default: recognized.

    Returns:
        Name of the task.

    Raises:
        DataError: The folder seems to hold masks, and the names of its files do not say which, or it fits both tasks.
    """
    if is_listing(root, named=True):
        return "classification"
    names = names or PairNames()
    found = find_pairs(root, names)
    if found is not None:
        pairs = next(iter(found.splits.values()))
        beside = [
            (image, mask) for image, mask in zip(pairs.images, pairs.masks, strict=True) if image.parent == mask.parent
        ][:_NUM_SAMPLES]
        # Photographs can be called "1_mask.jpg", too.
        if beside and not all(is_mask_like(mask) and not is_mask_like(image) for image, mask in beside):
            return "classification"
        if found.in_folders_of and names.mask_suffix is None:
            raise DataError(
                f"{root} holds masks beside the images of {comma_list(found.in_folders_of)}; if these are classes of "
                "images, give --task classification, and the masks are left out; if the masks are to be learned, give "
                "--task segmentation"
            )
        return "segmentation"
    images = walk_images(root)
    unpaired = find_unpaired_masks(images, root)
    if len(unpaired) == 1 and unpaired[0].has_same_stems:
        photos, masks = unpaired[0].images, unpaired[0].masks
        raise DataError(
            f"{root}: {masks} seems to hold the masks of {photos}; give --images {photos} --masks {masks}, or, if the "
            "folders are classes, --task classification"
        )
    if unpaired:
        raise DataError(
            f"{root}: {comma_list([each.masks for each in unpaired])} seem to hold masks of single classes or objects, "
            "several for an image, or of images whose names they do not have; write one mask for each image, whose "
            "numbers are the classes and whose name is that of the image, into one folder, or, if the folders are "
            "classes, give --task classification"
        )
    sidecars = find_sidecars(images)
    if sidecars:
        raise DataError(describe_sidecars(root, sidecars))
    unnamed = find_unnamed_masks(images)
    if unnamed is not None:
        photos, masks = (folder.relative_to(root).as_posix() for folder in unnamed)
        raise DataError(
            f"{root}: {masks} seems to hold the masks of {photos}, since the files have matching names and the same "
            f"sizes, and those of {masks} few colors; give --images {Path(photos).name} --masks {Path(masks).name}, "
            "or, if these are two classes, --task classification"
        )
    return "classification"
