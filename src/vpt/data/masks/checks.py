"""Checks of the ids in masks against their reading, before anything is trained on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpt.core.text import comma_list, pluralize
from vpt.data.masks.files import MaskStats
from vpt.data.masks.schemes import IGNORE_INDEX, LabelScheme
from vpt.errors import DataError

MAX_SUGGESTED = 12  # ids that a suggested option names
_MIN_RATIO = 2  # classes for each id that occurs, from which on the reading is wrong
_BLURRED_IDS, _BLURRED_SHARE = 64, 0.8  # more ids, and share of the pixels that have the first or the last of them
_LEAST_SHARE = 0.02  # of each of the two ids that are meant


def describe_id(value: int, scheme: LabelScheme) -> str:
    """Return an id of a mask as text: a number, or a color such as "#ff0000"."""
    return f"#{value:06x}" if scheme.is_colors else str(value)


def all_ids(mask_stats: Mapping[str, MaskStats]) -> list[int]:
    """Return the distinct ids of all masks, sorted."""
    return sorted({int(k) for stats in mask_stats.values() for k in stats.ids})


def unknown_id_faults(
    mask_stats: Mapping[str, MaskStats], lookup_table: NDArray[np.int16], scheme: LabelScheme, reading: str
) -> list[str]:
    """Return a fault for each mask with ids that have no class.

    Args:
        mask_stats: Name to ids of the mask.
        lookup_table: int16 (65536,), id to class.
        scheme: The scheme of the ids.
        reading: Description of the reading, for the faults.

    Returns:
        The faults.
    """
    known_ids = set(scheme.colors) if scheme.is_colors else set(np.flatnonzero(lookup_table >= 0).tolist())
    known = comma_list([describe_id(k, scheme) for k in sorted(known_ids - {*scheme.ignore_ids})], 20)
    faults = []
    for name, stats in mask_stats.items():
        unknown = [describe_id(int(k), scheme) for k in stats.ids if int(k) not in known_ids]
        if unknown:
            present = comma_list([describe_id(int(k), scheme) for k in stats.ids], 12)
            hint = "; it is a JPEG or the like, whose values are blurred: save it as PNG, or list the ids with --labels"
            faults.append(
                f"{name}: ids {comma_list(unknown)} of the mask have no class: with {reading}, ids are {known}; "
                f"it contains {present}{hint if stats.is_lossy else ''}"
            )
    return faults


def refuse_degenerate_ids(
    root: Path,
    scheme: LabelScheme,
    reading: str,
    classes: Sequence[str],
    pixel_counts: NDArray[np.int64],
    ids: list[int],
    *,
    are_counted: bool,
    are_lossy: bool = False,
    ignoring: Sequence[str] = (),
) -> None:
    """Refuse masks whose reading leaves one class, or makes many classes that no pixel has.

    Args:
        root: The data folder.
        scheme: The scheme of the ids.
        reading: Name of the scheme.
        classes: Names of the classes.
        pixel_counts: Pixels of each class in train.
        ids: The ids of all masks.
        are_counted: True if nothing but the largest id says how many classes there are.
        are_lossy: True if there are JPEGs among the masks. Default: False.
        ignoring: Options that were given and that ignore an id. Default: none.

    Raises:
        DataError: The reading cannot be meant; the message has the option that reads the masks rightly.
    """
    used = int((pixel_counts > 0).sum())
    texts = [describe_id(k, scheme) for k in ids]
    option = (
        f"--labels {','.join(texts)}" if 1 < len(texts) <= MAX_SUGGESTED else "--labels with the ids of the classes"
    )
    if used < 2:
        ignored = [
            describe_id(k, scheme) for k in ids if k in scheme.ignore_ids or (scheme.reduce_zero_label and k == 0)
        ]
        because = f", and of these {comma_list(ignored)} is ignored" if ignored else ""
        steps = [f"leave out {' and '.join(ignoring)}"] if ignoring and len(texts) > 1 else []
        if len(texts) > 1 and sorted(scheme.ids) != ids:
            steps.append(f"{option} reads each id as a class")
        advice = "; ".join(steps) or "check that these are the masks"
        raise DataError(
            f"{root}: read as {reading}, the masks of train hold {pluralize(used, 'class')} only: their ids are "
            f"{comma_list(texts, MAX_SUGGESTED)}{because}; {advice}"
        )
    if are_lossy:
        option = "they are JPEGs or the like, whose values are blurred: --labels with the ids that are meant, such as "\
                 "0,255, reads each other one as the nearest, and"  # fmt: skip
    known = [k for k in ids if k not in scheme.ignore_ids]
    if are_counted and len(classes) > _MIN_RATIO * len(known):
        raise DataError(
            f"{root}: the masks hold the {pluralize(len(texts), 'id')} {comma_list(texts, MAX_SUGGESTED)}, and read as "
            f"{reading} they make {len(classes)} classes, most of which no pixel has; {option} makes one class of each "
            "id (255 too is one if it is listed)"
        )


def refuse_blurred_masks(root: Path, mask_stats: Mapping[str, MaskStats]) -> None:
    """Refuse masks whose edges were blurred when they were resized, so that each shade of an edge would be a class.

    Args:
        root: The data folder.
        mask_stats: Name to ids of the mask.

    Raises:
        DataError: Most pixels have the first or the last id, each of these many, and the others many in between.
    """
    ids, counts = np.arange(65536), np.zeros(65536, np.int64)
    for stats in mask_stats.values():
        counts[stats.ids] += stats.counts
    ids = ids[counts > 0]
    if len(ids) <= _BLURRED_IDS:
        return
    shares = counts[ids[[0, -1]]] / counts.sum()
    share = shares.sum()
    is_dense = np.diff(ids).max() <= (ids[-1] - ids[0]) / 4  # numbered classes and 255 for void leave a gap
    if share >= _BLURRED_SHARE and shares.min() >= _LEAST_SHARE and is_dense:
        raise DataError(
            f"{root}: the masks hold {len(ids)} ids, and {100 * share:.0f} % of their pixels have {ids[0]} or "
            f"{ids[-1]}, as if edges were blurred by resizing; resize masks by nearest neighbor, or save them with "
            "these two ids alone; if each id is a class, list them with --labels"
        )


def reading_notes(
    scheme_name: str, scheme: LabelScheme, ids: list[int], mask_stats: Mapping[str, MaskStats]
) -> list[str]:
    """Return notes about masks whose reading may not be the one that was meant.

    Args:
        scheme_name: Name of the scheme.
        scheme: The scheme.
        ids: The ids of all masks.
        mask_stats: Name to ids of the mask.

    Returns:
        The notes.
    """
    notes = []
    known = [k for k in ids if k not in scheme.ignore_ids and not (scheme.reduce_zero_label and k == 0)]
    if scheme.classes and len(known) * 4 <= len(scheme.classes):
        notes.append(
            f"the masks use {len(known)} of the {len(scheme.classes)} classes of {scheme_name} (ids "
            f"{comma_list([str(k) for k in known], MAX_SUGGESTED)}); if they are not masks of {scheme_name}, "
            "--labels plain reads their ids as numbers of classes"
        )
    palettes = {stats.palette for stats in mask_stats.values()}
    if len(palettes) > 1 and not scheme.is_colors:
        notes.append(
            f"the masks have {len(palettes)} different color tables, so the same id can be another color in another "
            "file; --labels colors reads the colors instead of the ids"
        )
    return notes


def too_many_classes(root: Path, count: int, ids: Sequence[int]) -> DataError:
    """Return the error for more classes than a mask of 8 bits can tell apart."""
    if 1 < len(ids) <= MAX_SUGGESTED:
        listed = ",".join(map(str, ids))
        return DataError(
            f"{root}: the masks hold the {pluralize(len(ids), 'id')} {listed}, and read as numbers of classes they "
            f"make {count}; the maximum is {IGNORE_INDEX}; --labels {listed} makes one class of each id"
        )
    return DataError(
        f"{root}: {pluralize(count, 'class')} by the names or by the ids in the masks; the maximum is {IGNORE_INDEX}. "
        "If the largest id is to be ignored, set --ignore-index; to make classes of some ids alone, list them with "
        "--labels"
    )
