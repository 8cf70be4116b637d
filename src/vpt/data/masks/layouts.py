"""Folder layouts of public segmentation datasets, and the pairs of images and masks in them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from vpt.data.folders.walk import walk_images
from vpt.errors import DataError

LAYOUT_HELP = (
    "a segmentation folder holds images/ and masks/ (with or without train/, val/, test/ inside or around them), masks "
    "beside their images (1.jpg, 1_mask.png), or is laid out like CamVid (train/, trainannot/), ADE20K, Cityscapes or "
    "VOC; other names are given by --images, --masks and --mask-suffix"
)
_SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


@dataclass(frozen=True)
class FolderLayout:
    """Paths of images and masks below a data folder, with {split} for the name of a split.

    Args:
        images: Folder of the images.
        masks: Folder of the masks.
        labels: Name of the scheme in `LABEL_SCHEMES`. Default: "plain".
        image_suffix: End of the file stem of images, after the common key.
        mask_suffix: End of the file stem of masks, after the common key.
        lists: File with the stems of a split. Default: no lists.
    """

    images: str
    masks: str
    labels: str = "plain"
    image_suffix: str = ""
    mask_suffix: str = ""
    lists: str | None = None


LAYOUTS = (
    FolderLayout("{split}", "{split}annot", "camvid"),
    FolderLayout("images/{split}", "annotations/{split}", "ade20k"),
    FolderLayout("leftImg8bit/{split}", "gtFine/{split}", "cityscapes", "_leftImg8bit", "_gtFine_labelIds"),
    FolderLayout("JPEGImages", "SegmentationClass", "voc", lists="ImageSets/Segmentation/{split}.txt"),
)


@dataclass(frozen=True)
class ImageMaskPairs:
    """Images and their masks, as paths.

    Args:
        images: Image files.
        masks: Mask file of each image.
        names: Path of each image relative to the data folder, without suffix.
    """

    images: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.images)

    def __add__(self, other: ImageMaskPairs) -> ImageMaskPairs:
        """Return these pairs followed by others."""
        return ImageMaskPairs(self.images + other.images, self.masks + other.masks, self.names + other.names)

    def select(self, indices: Sequence[int]) -> ImageMaskPairs:
        """Return the pairs at some indices.

        Args:
            indices: Indices of pairs.

        Returns:
            These pairs, in this order.
        """
        images, masks = (tuple(paths[i] for i in indices) for paths in (self.images, self.masks))
        return ImageMaskPairs(images, masks, tuple(self.names[i] for i in indices))

    def among(self, names: Container[str]) -> ImageMaskPairs:
        """Return the pairs with some names.

        Args:
            names: The names.

        Returns:
            These pairs, in their order.
        """
        return self.select([i for i, name in enumerate(self.names) if name in names])


def find_published_pairs(root: Path, wanted: Sequence[str]) -> tuple[str, dict[str, ImageMaskPairs], list[str]] | None:
    """Return the pairs of a folder that is laid out like a published dataset.

    Args:
        root: The data folder.
        wanted: Splits whose files are paired.

    Returns:
        The name of its label scheme, split to pairs, and faults; None for other folders.
    """
    detected = _detect_layout(root)
    if detected is None:
        return None
    layout, names = detected
    faults = _unpaired_folders(root, layout, names)
    splits = {split: _find_layout_pairs(root, layout, name, faults) for split, name in names.items() if split in wanted}
    return layout.labels, splits, faults


def read_utf8(path: Path) -> str:
    """Return the contents of a text file, without the byte order mark.

    Args:
        path: The file.

    Returns:
        The text.

    Raises:
        DataError: The file is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _detect_layout(root: Path) -> tuple[FolderLayout, dict[str, str]] | None:
    """Return the layout of a segmentation folder.

    Args:
        root: The data folder.

    Returns:
        The layout, and split ("train", "val", "test") to its name in the folder; None for other folders.
    """
    for layout in LAYOUTS:
        templates = (layout.lists,) if layout.lists else (layout.images, layout.masks)
        found = {
            split_name: name
            for split_name, names in _SPLIT_NAMES.items()
            for name in names
            if all((root / template.format(split=name)).exists() for template in templates)
        }
        if "train" in found:
            return layout, found
    return None


def _unpaired_folders(root: Path, layout: FolderLayout, names: Mapping[str, str]) -> list[str]:
    """Return faults: splits with images but without masks, or the reverse. Masks of test are often not published.

    Args:
        root: The data folder.
        layout: Its layout.
        names: Split to its name in the folder.

    Returns:
        One text per fault.
    """
    if layout.lists:
        return []
    return [
        f"{existing.relative_to(root)}: there is no {missing_folder.relative_to(root)} for it"
        for split_name in ("train", "val")
        if split_name not in names
        for name in _SPLIT_NAMES[split_name]
        for existing, missing_folder in permutations(
            [root / template.format(split=name) for template in (layout.images, layout.masks)]
        )
        if existing.is_dir() and not missing_folder.exists()
    ]


def _find_layout_pairs(root: Path, layout: FolderLayout, name: str, faults: list[str]) -> ImageMaskPairs:
    """Return the images and masks of a split.

    Args:
        root: The data folder.
        layout: Its layout.
        name: Name of the split in the folder.
        faults: Receives images without a mask, masks without an image, and listed images that do not exist.

    Returns:
        The pairs, sorted by key.
    """
    images = _files_by_key(root, layout.images.format(split=name), layout.image_suffix, faults)
    masks = _files_by_key(root, layout.masks.format(split=name), layout.mask_suffix, faults)
    if layout.lists:
        stems = read_utf8(root / layout.lists.format(split=name)).split()
        faults += [f"{stem}: in the list, but there is no such image" for stem in stems if stem not in images]
        images, masks = ({k: found[k] for k in stems if k in found} for found in (images, masks))
    faults += [f"{path.relative_to(root)}: an image without a mask" for k, path in images.items() if k not in masks]
    faults += [f"{path.relative_to(root)}: a mask without an image" for k, path in masks.items() if k not in images]
    paths = [(images[k], masks[k]) for k in sorted(images.keys() & masks.keys())]
    names = tuple(image.relative_to(root).with_suffix("").as_posix() for image, _ in paths)
    return ImageMaskPairs(tuple(image for image, _ in paths), tuple(mask for _, mask in paths), names)


def _files_by_key(root: Path, folder: str, stem_suffix: str, faults: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in walk_images(root / folder) if (root / folder).is_dir() else ():
        if path.stem.endswith(stem_suffix):
            key = path.relative_to(root / folder).with_suffix("").as_posix().removesuffix(stem_suffix)
            if key in found:
                faults.append(f"{path.relative_to(root)}: {found[key].name} has the same name")
            found[key] = path
    return found
