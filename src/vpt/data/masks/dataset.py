"""Segmentation datasets, read from folders of images and masks and checked completely."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vpt.core.text import comma_list, pluralize, refuse
from vpt.data.decoding.value_checks import value_range_notes
from vpt.data.folders.names import SPLITS
from vpt.data.folders.walk import describe_foreign, walk_images
from vpt.data.images.value_range import ValueRange
from vpt.data.masks.checks import (
    all_ids,
    describe_id,
    reading_notes,
    refuse_blurred_masks,
    refuse_degenerate_ids,
    too_many_classes,
    unknown_id_faults,
)
from vpt.data.masks.classes import ClassNames, colors_of_names, name_classes
from vpt.data.masks.files import MaskFormat, MaskStats, Orientation, count_classes, scan_masks
from vpt.data.masks.layouts import LAYOUT_HELP, ImageMaskPairs
from vpt.data.masks.pairs import PairNames, find_pairs
from vpt.data.masks.schemes import IGNORE_INDEX, LABEL_SCHEMES, LabelScheme, parse_labels
from vpt.data.training_marks import check_split_again, describe_trained_val, describe_whole, has_marked
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
        mask_format: The reading of mask files.
        mask_stats: Name of each pair to the ids of its mask, and facts on its image.
        value_range: Values of black and white in images with more than 8 bits, or None for the range of their type.
        dropped: "name: reason" of each pair that is left out.
        labels: Text of `parse_labels` that gives the ids their classes.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, ImageMaskPairs]
    lookup_table: NDArray[np.int16]
    pixel_counts: NDArray[np.int64]
    digest: str
    notes: tuple[str, ...] = ()
    mask_format: MaskFormat = field(default_factory=MaskFormat)
    mask_stats: Mapping[str, MaskStats] = field(default_factory=dict)
    value_range: ValueRange | None = None
    dropped: tuple[str, ...] = ()
    labels: str = "plain"

    def class_counts(self, name: str) -> NDArray[np.int64]:
        """Return the number of pixels of each class in a mask.

        Args:
            name: Name of the pair.

        Returns:
            int64 (classes,).
        """
        return count_classes(self.mask_stats[name], self.lookup_table, self.mask_format, len(self.classes))

    def classes_of(self, name: str) -> set[int]:
        """Return the classes that have a pixel in a mask.

        Args:
            name: Name of the pair.

        Returns:
            Numbers of classes.
        """
        return set(np.flatnonzero(self.class_counts(name)).tolist())


def load_segmentation_dataset(
    source: str | Path,
    labels: str = "auto",
    *,
    ignore_index: int | None = None,
    reduce_zero_label: bool = False,
    images: str | None = None,
    masks: str | None = None,
    mask_suffix: str | None = None,
    split_names: str | None = None,
    mask_orientation: Orientation = "auto",
    value_range: ValueRange | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    include_test: bool = True,
    train_on: Literal["train", "trainval"] = "train",
    val_as_test: bool = False,
    classes: Sequence[str] | None = None,
    scored_split: str | None = None,
    trained_on: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    skip_corrupt: bool = False,
) -> SegmentationDataset:
    """Read a segmentation folder and check all of its files. Every image and mask is decoded once.

    Args:
        source: The data folder.
        labels: Text of `parse_labels`, or "auto" for the scheme of the layout. Default: "auto".
        ignore_index: A further id of pixels without a class; not for colors. Default: none.
        reduce_zero_label: Id 0 has no class, and class k has the id k + 1; not for colors. Default: False.
        images: Folder of the images, see `PairNames`. Default: recognized.
        masks: Folder of the masks. Default: recognized.
        mask_suffix: End of the stem of a mask after the stem of its image. Default: recognized.
        split_names: Names of the split folders, see `parse_split_names`. Default: recognized.
        mask_orientation: Masks of images that EXIF data turn are drawn on the "upright" image, or on its pixels as
            "stored"; "auto" for what the sizes prove. Default: "auto".
        value_range: Values of black and white in images with more than 8 bits. Default: the range of their type.
        val_fraction: Fraction of train to move to val if there is no val. Default: 0.2.
        seed: Seed of that split. Default: 0.
        include_test: False to leave the files of the test split unopened. Default: True.
        train_on: "trainval" adds val to train. Default: "train".
        val_as_test: Use val as test, for datasets without public masks of test, and take another val from train.
            Default: False.
        classes: Class names. Default: those of the scheme, see `name_classes`.
        scored_split: The only split that is read of a folder without an image that has a mark of `trained_on`; if there
            is no such split, it is all pairs. `val_as_test` does not apply to such a folder. Default: none.
        trained_on: Marks of training images, see `make_marks`. Default: none.
        progress: Called as (done, total) after each pair.
        on_note: Called with a note if all pairs are read because there is no `scored_split`. Default: none.
        skip_corrupt: True leaves pairs out of which the image or the mask cannot be used. Default: False.

    Returns:
        The dataset.

    Raises:
        DataError: Files cannot be used. The message names every fault: missing images or masks, unreadable files, masks
            of a different size, ids without a class; or the reading of the ids leaves one class; or `scored_split`
            has images that were trained on.
        SpecError: An option is out of range.
    """
    root = Path(source)
    if not 0 <= val_fraction < 1:
        raise SpecError(f"val_fraction is {val_fraction}; it must be at least 0 and below 1")
    is_own = scored_split is None or not trained_on or not root.is_dir() or has_marked(walk_images(root), trained_on)
    val_as_test = val_as_test and is_own
    wanted = [split for split in SPLITS if (include_test or split != "test") and not (val_as_test and split == "test")]
    names = PairNames(images, masks, mask_suffix, split_names)
    found_pairs = find_pairs(root, names, wanted) if root.is_dir() else None
    if found_pairs is None:
        unread: list[str] = []
        if root.is_dir():
            walk_images(root, unread)
        raise DataError(f"{str(source)!r} is not a segmentation folder; {LAYOUT_HELP}{describe_foreign(unread)}")
    scheme_name = found_pairs.labels if labels == "auto" else labels
    scheme = _label_scheme(scheme_name, ignore_index, reduce_zero_label)
    notes = [f"masks are read as {scheme_name}; --labels selects another scheme"] if labels == "auto" else []
    if labels in LABEL_SCHEMES and labels != found_pairs.labels:  # as a model may have been trained on another layout
        notes = [f"masks are read as {labels}; by the layout of {root.name}, they are {found_pairs.labels} (--labels)"]
    notes += found_pairs.notes
    splits, faults = dict(found_pairs.splits), list(found_pairs.faults)
    if val_as_test:
        if "val" not in splits:
            raise DataError(f"{root} has no val split to use as test; {LAYOUT_HELP}")
        splits["test"] = splits.pop("val")
    if scored_split is not None and not is_own:
        whole = sum(splits.values(), ImageMaskPairs())
        if scored_split not in splits and on_note is not None:
            on_note(describe_whole(root, scored_split, len(whole)))
        splits, val_fraction = {scored_split: splits.get(scored_split, whole)}, 0.0
    mask_format = MaskFormat(scheme.is_colors, scheme.ids, mask_orientation)
    unusable: list[str] = []
    mask_stats = scan_masks(splits.values(), mask_format, unusable, progress, value_range)
    dropped = tuple(unusable) if skip_corrupt and mask_stats else ()
    if dropped:
        splits = {split: pairs.among(mask_stats) for split, pairs in splits.items()}
        splits = {split: pairs for split, pairs in splits.items() if len(pairs)}
    else:
        faults += unusable
    ids = all_ids(mask_stats)
    if scheme.is_colors and not scheme.colors:
        colors = colors_of_names(classes) if classes else ids
        scheme = replace(scheme, colors=tuple(colors), classes=tuple(describe_id(color, scheme) for color in colors))
    if scheme.is_colors:
        mask_format = replace(mask_format, nearest=tuple(sorted(scheme.colors)))
    named = ClassNames(tuple(classes)) if classes else name_classes(root, scheme, ids, scheme_name)
    notes += named.notes
    found = named.names
    if len(found) > IGNORE_INDEX:
        raise too_many_classes(root, len(found), ids)
    lookup_table = scheme.lookup_table(len(found))
    faults += unknown_id_faults(mask_stats, lookup_table, scheme, f"{len(found)} classes read as {scheme_name}")
    skip = ", or leave out what cannot be read with --skip-corrupt" if unusable and not skip_corrupt else ""
    help_on_ids = "for ids, see --labels, --ignore-index and --reduce-zero-label"
    if scheme.is_colors:
        help_on_ids = "list every color with --labels (ground=#000000,road=#ff0000), or read all with --labels colors"
    advice = f"correct or delete these files{skip}; {help_on_ids}"
    refuse(faults, f"{root}: {pluralize(len(faults), 'fault')}", advice)
    mask_format = replace(mask_format, orientation=_resolve_orientation(root, mask_orientation, mask_stats))
    if train_on == "trainval" and "train" in splits:
        if scored_split == "val":
            raise DataError(describe_trained_val(root))
        splits["train"] += splits.pop("val", ImageMaskPairs())
    elif "val" not in splits and val_fraction > 0 and len(splits.get("train", ())) > 1:
        splits |= _split_off_val(splits["train"], val_fraction, seed)
        notes.append(f"{pluralize(len(splits['val']), 'image')} of train moved to val (seed {seed})")
    if scored_split in ("val", "test") and is_own and trained_on:
        by_split = {split: splits.get(split, ImageMaskPairs()).images for split in SPLITS}
        note = check_split_again(root, by_split, scored_split, trained_on)
        notes += [note] if note else []
    pixel_counts = np.zeros(len(found), dtype=np.int64)
    for name in splits["train"].names if "train" in splits else ():
        pixel_counts += count_classes(mask_stats[name], lookup_table, mask_format, len(found))
    if classes is None:  # of a model, they are what it was trained with
        if "train" not in splits:
            raise DataError(f"{root} has no images for train; {LAYOUT_HELP}")
        are_lossy = any(stats.is_lossy for stats in mask_stats.values())
        if named.are_counted and not are_lossy:
            refuse_blurred_masks(root, mask_stats)
        options = {"--ignore-index": ignore_index in ids, "--reduce-zero-label": reduce_zero_label and 0 in ids}
        refuse_degenerate_ids(
            root, scheme, scheme_name, found, pixel_counts, ids, are_counted=named.are_counted, are_lossy=are_lossy,
            ignoring=[option for option, is_ignoring in options.items() if is_ignoring],
        )  # fmt: skip
    notes += reading_notes(scheme_name, scheme, ids, mask_stats)
    notes += value_range_notes([path for pairs in splits.values() for path in pairs.images], value_range)
    missing = [found[k] for k in np.flatnonzero(pixel_counts == 0)]
    if missing:
        notes.append(f"train has no pixel of {pluralize(len(missing), 'class')}: {comma_list(missing)}")
    keys = "".join(f"{name} {stats.key}\n" for name, stats in sorted(mask_stats.items()))
    digest = hashlib.sha256(keys.encode("utf-8", "surrogateescape"))
    return SegmentationDataset(
        root.resolve().name, found, splits, lookup_table, pixel_counts, digest.hexdigest(), tuple(notes), mask_format,
        mask_stats, value_range, dropped, scheme_name,
    )  # fmt: skip


def _label_scheme(name: str, ignore_index: int | None, reduce_zero_label: bool) -> LabelScheme:
    scheme = parse_labels(name)
    if scheme.is_colors and (ignore_index is not None or reduce_zero_label):
        option = f"ignore_index is {ignore_index}" if ignore_index is not None else "reduce_zero_label is True"
        raise SpecError(f"{option}, which is for masks of ids, and labels {name!r} reads colors; leave it out")
    if ignore_index is not None:
        if not 0 <= ignore_index <= 65535:
            raise SpecError(f"ignore_index is {ignore_index}; ids in masks are 0 to 65535")
        scheme = replace(scheme, ignore_ids=(*scheme.ignore_ids, ignore_index))
    return replace(scheme, reduce_zero_label=True) if reduce_zero_label else scheme


def _resolve_orientation(root: Path, given: Orientation, mask_stats: Mapping[str, MaskStats]) -> Orientation:
    """Return the orientation of masks whose sizes prove none. Refuse to guess it."""
    proven = {stats.proves for stats in mask_stats.values()} - {None, "auto"}
    unproven = [name for name, stats in mask_stats.items() if stats.proves == "auto"]
    if given != "auto" or not unproven:
        return given
    if len(proven) == 1:  # one program drew all masks
        return "stored" if "stored" in proven else "upright"
    raise DataError(
        f"{root}: EXIF data turn {pluralize(len(unproven), 'image')} ({comma_list(unproven)}) otherwise than their "
        "masks, which fit both ways: drawn on the image as viewers show both (--mask-orientation upright), or on its "
        "pixels as they are stored (--mask-orientation stored). Open an image and its mask in two programs, and give "
        "the option that fits"
    )


def _split_off_val(train: ImageMaskPairs, fraction: float, seed: int) -> dict[str, ImageMaskPairs]:
    order = np.random.default_rng(seed).permutation(len(train))
    count = min(max(1, round(fraction * len(train))), len(train) - 1)
    return {"train": train.select(sorted(order[count:])), "val": train.select(sorted(order[:count]))}
