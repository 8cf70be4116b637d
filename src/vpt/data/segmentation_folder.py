"""Folders of images and masks, in the layouts that data sets are published in; every fault is named at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt.core.text import bullets, comma_list, did_you_mean, pluralize
from vpt.data.image_files import IMAGE_SUFFIXES, UnreadableImageError, capture_warnings, open_rgb, supported_formats
from vpt.data.mask_labels import IGNORE_INDEX, LABEL_SCHEMES, LabelScheme
from vpt.errors import DataError, SpecError

LAYOUT_HELP = (
    "a segmentation folder holds images/ and masks/ (with or without train/, val/, test/ inside), or is laid out like "
    "CamVid (train/, trainannot/), ADE20K, Cityscapes or VOC"
)
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class FolderLayout:
    """Where images and masks lie, with {split} for the name of a split; what their stems end with besides the key.

    labels: the row of `LABEL_SCHEMES` that this layout stands for. lists: file of stems of a split, where one names them.
    """

    images: str
    masks: str
    labels: str = "plain"
    image_suffix: str = ""
    mask_suffix: str = ""
    lists: str | None = None

    @property
    def has_splits(self) -> bool:
        """Whether train, val and test lie apart."""
        return "{split}" in self.images or self.lists is not None


LAYOUTS = (
    FolderLayout("{split}", "{split}annot", "camvid"),
    FolderLayout("images/{split}", "annotations/{split}", "ade20k"),
    FolderLayout("leftImg8bit/{split}", "gtFine/{split}", "cityscapes", "_leftImg8bit", "_gtFine_labelIds"),
    FolderLayout("JPEGImages", "SegmentationClass", "voc", lists="ImageSets/Segmentation/{split}.txt"),
    FolderLayout("images/{split}", "masks/{split}"),
    FolderLayout("{split}/images", "{split}/masks"),
    FolderLayout("images", "masks"),
)


@dataclass(frozen=True)
class ImageMaskPairs:
    """Images with their masks, by path; names are relative to the data folder, without suffix."""

    images: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __add__(self, other: ImageMaskPairs) -> ImageMaskPairs:
        return ImageMaskPairs(self.images + other.images, self.masks + other.masks, self.names + other.names)

    def select(self, indices: Sequence[int]) -> ImageMaskPairs:
        """The pairs at these positions, in this order."""
        images, masks = (tuple(paths[i] for i in indices) for paths in (self.images, self.masks))
        return ImageMaskPairs(images, masks, tuple(self.names[i] for i in indices))


@dataclass(frozen=True)
class SegmentationDataset:
    """A segmentation task, checked.

    lookup_table: id in a mask -> class, see `LabelScheme.lookup_table`. pixel_counts: of each class in train, int64 (classes,).
    digest: of all masks and of the images' names and sizes.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, ImageMaskPairs]
    lookup_table: NDArray[np.int16]
    pixel_counts: NDArray[np.int64]
    digest: str
    notes: tuple[str, ...] = field(default=())


def detect_folder_layout(root: Path) -> tuple[FolderLayout, dict[str, str]] | None:
    """The layout of a folder, and the names its splits have there; None where it is no segmentation folder."""
    for layout in LAYOUTS:
        if not layout.has_splits:
            if (root / layout.images).is_dir() and (root / layout.masks).is_dir():
                return layout, {"train": ""}
            continue
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


def load_segmentation_dataset(
    source: str | Path,
    labels: str = "auto",
    *,
    ignore_index: int | None = None,
    reduce_zero_label: bool = False,
    val_fraction: float = 0.2,
    seed: int = 0,
    include_test: bool = True,
    train_on: Literal["train", "trainval"] = "train",
    val_as_test: bool = False,
    classes: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SegmentationDataset:
    """Read and check a folder: all images and all masks are opened once.

    labels: a row of `LABEL_SCHEMES`; "auto" takes the layout's own. ignore_index, reduce_zero_label: for "plain" masks. classes: names
    known already; else the row's, or `classes.txt` in the folder (one name a line), or numbers.
    val_fraction: cut from train where there is no val. include_test: False leaves the test split unopened.
    train_on: "trainval" adds val to train. val_as_test: the folder's val is scored on as test, for sets that publish
    no masks of their test images, and another val is cut from train.
    Raises DataError with every fault: images without masks and masks without images, files that cannot be read, masks
    of another size, ids that stand for nothing.
    """
    root = Path(source)
    detected = detect_folder_layout(root) if root.is_dir() else None
    if detected is None:
        raise DataError(f"{str(source)!r} is no segmentation folder; {LAYOUT_HELP}")
    layout, names = detected
    scheme_name = layout.labels if labels == "auto" else labels
    if scheme_name not in LABEL_SCHEMES:
        raise SpecError(f"labels is {labels!r}; {did_you_mean(labels, ['auto', *LABEL_SCHEMES])}")
    scheme = LABEL_SCHEMES[scheme_name]
    notes = [f"masks are read as {scheme_name}; --labels chooses another reading"] if labels == "auto" else []
    if ignore_index is not None:
        if not 0 <= ignore_index <= 65535:
            raise SpecError(f"ignore_index is {ignore_index}; ids in masks are 0 to 65535")
        scheme = replace(scheme, ignore_ids=(*scheme.ignore_ids, ignore_index))
    if reduce_zero_label:
        scheme = replace(scheme, reduce_zero_label=True)

    if not 0 <= val_fraction < 1:
        raise SpecError(f"val_fraction is {val_fraction}; it must be at least 0 and below 1")
    if val_as_test:
        if "val" not in names:
            raise DataError(f"{root} has no val that could be scored on as test; {LAYOUT_HELP}")
        names = {"train": names["train"], "test": names["val"]}
    faults = _unpaired_folders(root, layout, names)
    splits = {
        split_name: _find_pairs(root, layout, name, faults)
        for split_name, name in names.items()
        if include_test or split_name != "test"
    }
    mask_stats = _scan(splits, faults, progress)
    found = tuple(classes or scheme.classes or _read_classes_file(root) or _numbered_classes(scheme, mask_stats))
    if len(found) > IGNORE_INDEX:
        raise DataError(
            f"{root}: {pluralize(len(found), 'class')}, or ids that large in a mask; {IGNORE_INDEX} can be told apart. Is the "
            "largest id one to be ignored? See --ignore-index"
        )
    lookup_table = scheme.lookup_table(len(found))
    for name, stats in mask_stats.items():
        unknown_ids = [int(k) for k in stats.ids if lookup_table[k] < 0]
        if unknown_ids:
            faults.append(f"{name}: ids {comma_list([str(k) for k in unknown_ids])} of the mask stand for no class: with "
                          f"{len(found)} classes read as {scheme_name}, ids are {_format_ids(lookup_table)}; it holds "
                          f"{comma_list([str(k) for k in stats.ids], 12)}")  # fmt: skip
    if faults:
        raise DataError(
            f"{root}: {pluralize(len(faults), 'fault')}:{bullets(faults)}\ncorrect or delete these files; for ids, see "
            "--labels, --ignore-index and --reduce-zero-label"
        )
    if train_on == "trainval":
        splits["train"] += splits.pop("val", ImageMaskPairs())
    elif "val" not in splits and val_fraction > 0 and len(splits["train"]) > 1:
        splits |= _split_off_val(splits["train"], val_fraction, seed)
        notes.append(f"{pluralize(len(splits['val']), 'image')} of train were set apart as val (seed {seed})")
    empty = [split_name for split_name, pairs in splits.items() if not len(pairs)]
    if empty:
        raise DataError(f"{root} has no images for {', '.join(empty)}; {LAYOUT_HELP}")
    pixel_counts = np.zeros(len(found), dtype=np.int64)
    for name in splits["train"].names:
        class_ids = lookup_table[mask_stats[name].ids]
        np.add.at(
            pixel_counts, class_ids[class_ids != IGNORE_INDEX], mask_stats[name].counts[class_ids != IGNORE_INDEX]
        )
    missing = [found[k] for k in np.flatnonzero(pixel_counts == 0)]
    if missing:
        notes.append(f"train has no pixel of {pluralize(len(missing), 'class')}: {comma_list(missing)}")
    digest = hashlib.sha256("".join(f"{name} {stats.key}\n" for name, stats in sorted(mask_stats.items())).encode())
    return SegmentationDataset(
        root.resolve().name, found, splits, lookup_table, pixel_counts, digest.hexdigest(), tuple(notes)
    )


def load_pair(
    pairs: ImageMaskPairs, index: int, lookup_table: NDArray[np.int16]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One image (3, height, width) and its classes (height, width), IGNORE_INDEX where there is none. Inside `capture_warnings`."""
    image, _ = open_rgb(pairs.images[index])
    mask = lookup_table[_open_mask(pairs.masks[index])].astype(np.uint8)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)), mask


@dataclass(frozen=True)
class _MaskStats:
    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    key: str


def _unpaired_folders(root: Path, layout: FolderLayout, names: Mapping[str, str]) -> list[str]:
    """Splits with images and no masks, or the other way round; those of test are often kept back."""
    if not layout.has_splits or layout.lists:
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


def _find_pairs(root: Path, layout: FolderLayout, name: str, faults: list[str]) -> ImageMaskPairs:
    images = _files_by_key(root, layout.images.format(split=name), layout.image_suffix, faults)
    masks = _files_by_key(root, layout.masks.format(split=name), layout.mask_suffix, faults)
    if layout.lists:
        stems = (root / layout.lists.format(split=name)).read_text(encoding="utf-8-sig").split()
        faults += [f"{stem}: named in the list, but there is no such image" for stem in stems if stem not in images]
        images, masks = ({k: found[k] for k in stems if k in found} for found in (images, masks))
    faults += [f"{path.relative_to(root)}: an image without a mask" for k, path in images.items() if k not in masks]
    faults += [f"{path.relative_to(root)}: a mask without an image" for k, path in masks.items() if k not in images]
    both = sorted(images.keys() & masks.keys())
    names = tuple(images[k].relative_to(root).with_suffix("").as_posix() for k in both)
    return ImageMaskPairs(tuple(images[k] for k in both), tuple(masks[k] for k in both), names)


def _files_by_key(root: Path, folder: str, stem_suffix: str, faults: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted((root / folder).rglob("*")):
        if (
            path.name.startswith(".")
            or path.suffix.casefold() not in IMAGE_SUFFIXES
            or not path.stem.endswith(stem_suffix)
        ):
            continue
        key = path.relative_to(root / folder).with_suffix("").as_posix().removesuffix(stem_suffix)
        if key in found:
            faults.append(f"{path.relative_to(root)}: {found[key].name} has the same name")
        found[key] = path
    return found


def _open_mask(path: Path) -> NDArray[np.int64]:
    """Ids (height, width), as they stand in an index or gray image of 8 or 16 bits. Raises UnreadableImageError."""
    try:
        if not path.is_file():  # a pipe would be waited for for ever
            raise UnreadableImageError("not a regular file")
        with Image.open(path, formats=supported_formats()) as image:
            if image.mode not in ("P", "L", "1", "I", "I;16"):
                raise UnreadableImageError(
                    f"a mask of mode {image.mode}; save it with one number per pixel (index or gray PNG)"
                )
            ids = np.asarray(image).astype(np.int64)
    except UnreadableImageError:
        raise
    except Exception as error:  # on damaged files Pillow raises whatever its decoders stumble over
        raise UnreadableImageError(f"a mask that cannot be read: {error}") from error
    if ids.min() < 0 or ids.max() > 65535:
        raise UnreadableImageError(f"a mask with ids from {ids.min()} to {ids.max()}, outside 0 to 65535")
    return ids


def _scan(
    splits: dict[str, ImageMaskPairs], faults: list[str], progress: Callable[[int, int], None] | None
) -> dict[str, _MaskStats]:
    """Open everything once: name -> ids and their counts. What cannot be used goes to `faults`."""

    def scan_pair(pair: tuple[str, Path, Path]) -> _MaskStats | str:
        name, image_path, mask_path = pair
        try:
            image, _ = open_rgb(image_path)
            ids = _open_mask(mask_path)
        except UnreadableImageError as error:
            return f"{name}: {error}"
        if image.size != ids.shape[::-1]:
            return f"{name}: the image has {image.width} x {image.height} px, its mask {ids.shape[1]} x {ids.shape[0]}"
        values, counts = np.unique(ids, return_counts=True)
        return _MaskStats(values, counts, f"{ids.shape} {hashlib.sha256(ids.tobytes()).hexdigest()}")

    pairs_to_scan = [
        pair for pairs in splits.values() for pair in zip(pairs.names, pairs.images, pairs.masks, strict=True)
    ]
    mask_stats: dict[str, Any] = {}
    with capture_warnings(), ThreadPoolExecutor() as pool:
        for done, (pair, stats) in enumerate(
            zip(pairs_to_scan, pool.map(scan_pair, pairs_to_scan), strict=True), start=1
        ):
            if isinstance(stats, str):
                faults.append(stats)
            else:
                mask_stats[pair[0]] = stats
            if progress:
                progress(done, len(pairs_to_scan))
    return mask_stats


def _read_classes_file(root: Path) -> tuple[str, ...]:
    path = root / "classes.txt"
    names = tuple(path.read_text(encoding="utf-8-sig").strip().splitlines()) if path.is_file() else ()
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise DataError(f"{path} names {comma_list(duplicates)} more than once; give each class a name of its own")
    return names


def _numbered_classes(scheme: LabelScheme, mask_stats: dict[str, _MaskStats]) -> tuple[str, ...]:
    """As many classes as the largest id of any mask tells."""
    ids = (
        np.unique(np.concatenate([stats.ids for stats in mask_stats.values()]))
        if mask_stats
        else np.zeros(0, dtype=np.int64)
    )
    ids = ids[~np.isin(ids, scheme.ignore_ids)]
    num_classes = int(ids.max()) + 1 - int(scheme.reduce_zero_label) if len(ids) else 0
    return tuple(str(k) for k in range(max(num_classes, 1)))


def _format_ids(lookup_table: NDArray[np.int16]) -> str:
    known = np.flatnonzero(lookup_table >= 0)
    return comma_list([str(k) for k in known], 20)


def _split_off_val(train: ImageMaskPairs, fraction: float, seed: int) -> dict[str, ImageMaskPairs]:
    order = np.random.default_rng(seed).permutation(len(train))
    count = min(max(1, round(fraction * len(train))), len(train) - 1)
    return {"train": train.select(sorted(order[count:])), "val": train.select(sorted(order[:count]))}
