"""Matching of images and masks by the stems of their files."""

from collections.abc import Collection, Iterable, Sequence

from vpt.data.folder_names import role_of
from vpt.data.mask_evidence import image_stem


def match_stems(images: Collection[str], masks: Collection[str]) -> dict[str, str]:
    """Match images with masks: by equal stems, by words such as "_mask", or without what all stems begin and end with.

    Args:
        images: Stems of the images.
        masks: Stems of the masks.

    Returns:
        Stem of an image to stem of its mask; empty if fewer than half of the masks or images have a partner.
    """
    if not images or not masks:
        return {}
    same = set(images) & set(masks)
    if same and 2 * len(same) >= min(len(images), len(masks)):
        return {stem: stem for stem in same}
    stems = set(images)
    by_word = {stem: image_stem(stem, stems) for stem in masks if role_of(stem) == "mask"}
    matched = {image: mask for mask, image in by_word.items() if image is not None}
    if matched and 2 * len(matched) >= min(len(images), len(masks)):
        return matched
    keys = [_without_affixes(stems) for stems in (images, masks)]
    both = keys[0].keys() & keys[1].keys()
    if both and 2 * len(both) >= min(len(images), len(masks)):
        return {keys[0][key]: keys[1][key] for key in both}
    return {}


def _without_affixes(stems: Iterable[str]) -> dict[str, str]:
    """Return stems without what all of them begin and end with, to the whole stem. Numbers stay whole."""
    stems = list(stems)
    prefix = _common_start(stems).rstrip("0123456789")
    suffix = _common_start([stem[::-1] for stem in stems])[::-1].lstrip("0123456789")
    return {stem.removeprefix(prefix).removesuffix(suffix): stem for stem in stems}


def _common_start(texts: Sequence[str]) -> str:
    """Return what two or more texts begin with."""
    first, last = min(texts), max(texts)  # every other text lies between them
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:length] if len(texts) > 1 else ""
