"""Segmentation datasets, read from folders of images and masks and checked completely."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vpt.core.text import comma_list, did_you_mean, pluralize, refuse
from vpt.data.masks import IGNORE_INDEX, LABEL_SCHEMES, LabelScheme, MaskStats, scan_masks
from vpt.data.segmentation_layouts import (
    LAYOUT_HELP,
    ImageMaskPairs,
    detect_folder_layout,
    find_pairs,
    unpaired_folders,
)
from vpt.errors import DataError, SpecError


@dataclass(frozen=True)
class SegmentationDataset:
    """A segmentation dataset whose files have been checked.

    Args:
        name: A short name for tables and files.
        classes: Name of each class.
        splits: Split ("train", "val", "test") to its pairs.
        lookup_table: int16 (65536,), id in a mask to class, see `LabelScheme.lookup_table`.
        pixel_counts: Pixels of each class in train, int64 (classes,).
        digest: Hash of all masks and of the names and sizes of the images.
        notes: Messages for the user that require no action, one sentence each.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, ImageMaskPairs]
    lookup_table: NDArray[np.int16]
    pixel_counts: NDArray[np.int64]
    digest: str
    notes: tuple[str, ...] = ()


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
    """Read a segmentation folder and check all of its files. Every image and mask is decoded once.

    Args:
        source: The data folder.
        labels: A name in `LABEL_SCHEMES`, or "auto" for that of the layout. Default: "auto".
        ignore_index: A further id of pixels without a class. Default: none.
        reduce_zero_label: Id 0 has no class, and class k has the id k + 1. Default: False.
        val_fraction: Fraction of train to move to val if there is no val. Default: 0.2.
        seed: Seed of that split. Default: 0.
        include_test: False to leave the files of the test split unopened. Default: True.
        train_on: "trainval" adds val to train. Default: "train".
        val_as_test: Use val as test, for datasets without public masks of test, and take another val from train.
            Default: False.
        classes: Class names. Default: those of the scheme, else of `classes.txt` (one name per line), else numbers.
        progress: Called as (done, total) after each pair.

    Returns:
        The dataset.

    Raises:
        DataError: Files cannot be used. The message names every fault: missing images or masks, unreadable files, masks
            of a different size, ids without a class.
        SpecError: An option is out of range.
    """
    root = Path(source)
    detected = detect_folder_layout(root) if root.is_dir() else None
    if detected is None:
        raise DataError(f"{str(source)!r} is not a segmentation folder; {LAYOUT_HELP}")
    layout, names = detected
    scheme_name = layout.labels if labels == "auto" else labels
    scheme = _label_scheme(scheme_name, ignore_index, reduce_zero_label)
    notes = [f"masks are read as {scheme_name}; --labels selects another scheme"] if labels == "auto" else []
    if not 0 <= val_fraction < 1:
        raise SpecError(f"val_fraction is {val_fraction}; it must be at least 0 and below 1")
    if val_as_test:
        if "val" not in names:
            raise DataError(f"{root} has no val split to use as test; {LAYOUT_HELP}")
        names = {"train": names["train"], "test": names["val"]}
    faults = unpaired_folders(root, layout, names)
    splits = {
        split_name: find_pairs(root, layout, name, faults)
        for split_name, name in names.items()
        if include_test or split_name != "test"
    }
    mask_stats = scan_masks(splits.values(), faults, progress)
    found = tuple(classes or scheme.classes or _read_classes_file(root) or _numbered_classes(scheme, mask_stats))
    if len(found) > IGNORE_INDEX:
        raise DataError(
            f"{root}: {pluralize(len(found), 'class')} by the names or by the largest id in a mask; the maximum is "
            f"{IGNORE_INDEX}. If the largest id is to be ignored, set --ignore-index"
        )
    lookup_table = scheme.lookup_table(len(found))
    faults += _unknown_id_faults(mask_stats, lookup_table, f"{len(found)} classes read as {scheme_name}")
    advice = "correct or delete these files; for ids, see --labels, --ignore-index and --reduce-zero-label"
    refuse(faults, f"{root}: {pluralize(len(faults), 'fault')}", advice)
    if train_on == "trainval":
        splits["train"] += splits.pop("val", ImageMaskPairs())
    elif "val" not in splits and val_fraction > 0 and len(splits["train"]) > 1:
        splits |= _split_off_val(splits["train"], val_fraction, seed)
        notes.append(f"{pluralize(len(splits['val']), 'image')} of train moved to val (seed {seed})")
    empty = [split_name for split_name, pairs in splits.items() if not len(pairs)]
    if empty:
        raise DataError(f"{root} has no images for {', '.join(empty)}; {LAYOUT_HELP}")
    counts = np.zeros(IGNORE_INDEX + 1, dtype=np.int64)
    for name in splits["train"].names:
        np.add.at(counts, lookup_table[mask_stats[name].ids], mask_stats[name].counts)
    pixel_counts = counts[: len(found)]
    missing = [found[k] for k in np.flatnonzero(pixel_counts == 0)]
    if missing:
        notes.append(f"train has no pixel of {pluralize(len(missing), 'class')}: {comma_list(missing)}")
    digest = hashlib.sha256("".join(f"{name} {stats.key}\n" for name, stats in sorted(mask_stats.items())).encode())
    return SegmentationDataset(
        root.resolve().name, found, splits, lookup_table, pixel_counts, digest.hexdigest(), tuple(notes)
    )


def _label_scheme(name: str, ignore_index: int | None, reduce_zero_label: bool) -> LabelScheme:
    if name not in LABEL_SCHEMES:
        raise SpecError(f"labels is {name!r}; {did_you_mean(name, ['auto', *LABEL_SCHEMES])}")
    scheme = LABEL_SCHEMES[name]
    if ignore_index is not None:
        if not 0 <= ignore_index <= 65535:
            raise SpecError(f"ignore_index is {ignore_index}; ids in masks are 0 to 65535")
        scheme = replace(scheme, ignore_ids=(*scheme.ignore_ids, ignore_index))
    return replace(scheme, reduce_zero_label=True) if reduce_zero_label else scheme


def _unknown_id_faults(mask_stats: Mapping[str, MaskStats], lookup_table: NDArray[np.int16], reading: str) -> list[str]:
    known = comma_list([str(k) for k in np.flatnonzero(lookup_table >= 0)], 20)
    faults = []
    for name, stats in mask_stats.items():
        unknown = [str(k) for k in stats.ids if lookup_table[k] < 0]
        if unknown:
            faults.append(
                f"{name}: ids {comma_list(unknown)} of the mask have no class: with {reading}, ids are {known}; "
                f"it contains {comma_list([str(k) for k in stats.ids], 12)}"
            )
    return faults


def _read_classes_file(root: Path) -> tuple[str, ...]:
    path = root / "classes.txt"
    names = tuple(path.read_text(encoding="utf-8-sig").strip().splitlines()) if path.is_file() else ()
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise DataError(f"{path} names {comma_list(duplicates)} more than once; give each class a name of its own")
    return names


def _numbered_classes(scheme: LabelScheme, mask_stats: dict[str, MaskStats]) -> tuple[str, ...]:
    """Return numbers as class names, up to the largest id in any mask."""
    ids = {int(k) for stats in mask_stats.values() for k in stats.ids} - set(scheme.ignore_ids)
    return tuple(str(k) for k in range(max([1, *(k + 1 - scheme.reduce_zero_label for k in ids)])))


def _split_off_val(train: ImageMaskPairs, fraction: float, seed: int) -> dict[str, ImageMaskPairs]:
    order = np.random.default_rng(seed).permutation(len(train))
    count = min(max(1, round(fraction * len(train))), len(train) - 1)
    return {"train": train.select(sorted(order[count:])), "val": train.select(sorted(order[:count]))}
