"""Matching of images and masks by the stems of their files."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from vpt.data.folders.mask_evidence import image_stem
from vpt.data.folders.names import role_of


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
    for left, right in (keys, [_without_zeros(found) for found in keys]):
        both = left.keys() & right.keys()
        if both and 2 * len(both) >= min(len(images), len(masks)):
            return {left[key]: right[key] for key in both}
    return {}


def match_beside(stems: Collection[str]) -> dict[str, str]:
    """Match masks with the images of the same folder, by words such as "_mask" in the stems of the masks.

    Args:
        stems: Stems of all images of the folder.

    Returns:
        Stem of a mask to stem of its image: "1_mask" to "1", or, if no mask is named so, to "1_sat" or "1_image".
    """
    masks = [stem for stem in stems if role_of(stem) == "mask"]
    known = {stem: image for stem in masks if (image := image_stem(stem, stems)) is not None}
    others = [stem for stem in stems if role_of(stem) != "mask"]
    if known or not masks or not others:
        return known
    if len(masks) == len(others) == 1:  # image.png and mask.png, in a folder for each image
        return {masks[0]: others[0]} if role_of(others[0]) == "image" else {}
    return {mask: image for image, mask in match_stems(others, masks).items()}


def _without_affixes(stems: Iterable[str]) -> dict[str, str]:
    """Return stems without what all of them begin and end with, to the whole stem. Numbers stay whole."""
    stems = list(stems)
    prefix = _common_start(stems).rstrip("0123456789")
    suffix = _common_start([stem[::-1] for stem in stems])[::-1].lstrip("0123456789")
    return {stem.removeprefix(prefix).removesuffix(suffix): stem for stem in stems}


def _without_zeros(stems: Mapping[str, str]) -> dict[str, str]:
    """Return stems by their keys, numbers without the zeros that they begin with; nothing if two become the same."""
    found = {key.lstrip("0") if key.isdecimal() else key: stem for key, stem in stems.items()}
    return found if len(found) == len(stems) else {}


def _common_start(texts: Sequence[str]) -> str:
    """Return what two or more texts begin with."""
    first, last = min(texts), max(texts)  # every other text lies between them
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:length] if len(texts) > 1 else ""
