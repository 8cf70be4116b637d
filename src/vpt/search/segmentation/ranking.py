"""What frozen probes choose in segmentation, by forward passes only: a backbone, and the size of its images."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.backbones import load_backbone
from vpt.data.preprocessing import MAX_SIZE
from vpt.errors import BackboneError, UnsupportedError, is_out_of_memory
from vpt.search.context import SearchContext
from vpt.search.segmentation.candidates import HEAD_ALONE, MaskSearch, find_linear_head
from vpt.search.segmentation.comparison import FEWEST_IMAGES, compare_masks, count_pixels
from vpt.search.segmentation.costs import measure_scoring, measure_solving
from vpt.tasks.segmentation.prediction import evenly, sum_scores
from vpt.tasks.segmentation.task import SegmentationData, SegmentationTask
from vpt.tuning import train_model

_MOST_IMAGES = 200  # of train, and of val, that rank
_SHARE = 0.2  # of the budget that each ranking may take
_FEWEST_FOR_SIZES = 20  # images of train, and of val, unless there are fewer: another size is a choice, not a need
_ENLARGEMENTS = (1.5, 2.0)  # of the side of an image


def choose_backbone_of_masks(
    context: SearchContext, data: SegmentationData
) -> tuple[SegmentationData, str, dict[str, Any] | None]:
    """Choose a backbone by the mean IoU of its frozen probe on the same images of val.

    Args:
        context: The search.
        data: Its images, with the first backbone.

    Returns:
        The data with the backbone that was chosen, its name, and the ranking as JSON values, or None where there is one
        backbone.
    """
    first, *others = context.request.backbones
    if not others:
        return data, first, None
    ranking = context.decisions.decide("backbone", lambda: _rank_backbones(context, data))
    context.callback.on_note(ranking["summary"])
    return _search(context, data, ranking["selected"]).data, str(ranking["selected"]), ranking


def choose_image_size(
    context: SearchContext, data: SegmentationData, backbone: str
) -> tuple[SearchContext, SegmentationData, dict[str, Any] | None]:
    """Choose the size of the images by the mean IoU of the frozen probe on the same images of val.

    A larger size is chosen where the probe is above that of the backbone's own size by more than the error. None is
    tried where the size was given, or there are too few images, or too little time; nor one that does not fit into
    memory, or that the backbone cannot take.

    Args:
        context: The search.
        data: Its images, with the backbone.
        backbone: Name of the backbone.

    Returns:
        The search with the option `image_size` if it is a larger one, the data with the backbone of this size, and the
        ranking as JSON values, or None where no size was tried.
    """
    if "image_size" in context.request.options or data.images.get("val", 0) < FEWEST_IMAGES:
        return context, data, None
    ranking = context.decisions.decide("image size", lambda: _rank_sizes(context, data, backbone))
    if not ranking["candidates"]:
        return context, data, None
    context.callback.on_note(ranking["summary"])
    if ranking["selected"] == ranking["candidates"][0]["image_size"]:
        return context, data, ranking
    context = _at_size(context, ranking["selected"])
    return context, _search(context, data, backbone).data, ranking


def _at_size(context: SearchContext, size: int) -> SearchContext:
    """Return a search for images of a size."""
    options = {**context.request.options, "image_size": size}
    return replace(context, request=replace(context.request, options=options))


def _search(context: SearchContext, data: SegmentationData, backbone: str) -> MaskSearch:
    """Return a search with the data of another backbone, or of one at another size."""
    job = context.request.job(backbone, HEAD_ALONE.method)
    loaded = SegmentationTask().load_backbone(job)  # which may be a download
    notes = [*loaded.notes, *(note for note in data.notes if note not in data.backbone.notes)]
    data = replace(data, backbone=loaded, notes=notes)
    return MaskSearch(**vars(context), data=data, backbone=backbone, costs={})


def _measure_image(search: MaskSearch) -> tuple[float, float]:
    """Return the seconds of an image of train and one of val, and those of the rest."""
    features, solving, model = measure_solving(search)
    return features + measure_scoring(search, model), solving


def _rank_backbones(context: SearchContext, data: SegmentationData) -> dict[str, Any]:
    names = context.request.backbones
    val = data.images.get("val", 0)
    if val < FEWEST_IMAGES:
        words = f"backbone {names[0]}, the first: {val} images of val rank no backbones"
        return {"selected": names[0], "candidates": [], "margin": None, "summary": words}
    costs = [_measure_image(_search(context, data, name)) for name in names]
    seconds = _SHARE * context.budget.seconds - sum(solving for _, solving in costs)
    count = max(FEWEST_IMAGES, _images_in(seconds, sum(each for each, _ in costs)))
    rows, counts = dict[str, dict[str, Any]](), dict[str, NDArray[np.int64]]()
    for name in names:
        row, counts[name] = _score_probe(_search(context, data, name), count)
        rows[name] = {"backbone": name, **row}
    best, second = sorted(rows, key=lambda name: -rows[name]["score"])[:2]
    margin = compare_masks(counts[best], counts[second])
    words = (
        f"backbone {best}: its frozen probe has {100 * rows[best]['score']:.1f} % mean IoU, "
        f"{100 * margin['gain']:.1f} points (95 % interval {100 * margin['low']:.1f} to {100 * margin['high']:.1f}) "
        f"above {second} on {rows[best]['images']} images of val"
    )
    return {"selected": best, "candidates": list(rows.values()), "margin": margin, "summary": words}


def _rank_sizes(context: SearchContext, data: SegmentationData, backbone: str) -> dict[str, Any]:
    own = data.backbone.preprocessing.size
    sizes, count = [own, *_larger_sizes(backbone, own)], 0
    fewest = min(_FEWEST_FOR_SIZES, len(data.labeled), data.images["val"])
    each, solving = _measure_image(_search(context, data, backbone))
    while len(sizes) > 1 and count < fewest:
        seconds = _SHARE * context.budget.seconds - len(sizes) * solving
        count = _images_in(seconds, each * sum((size / own) ** 2 for size in sizes))
        if count < fewest:
            sizes.pop()
    rows, counts = dict[int, dict[str, Any]](), dict[int, NDArray[np.int64]]()
    for size in sizes if len(sizes) > 1 else ():
        try:
            row, counts[size] = _score_probe(_search(_at_size(context, size), data, backbone), count)
        except (BackboneError, UnsupportedError, MemoryError, RuntimeError) as error:
            refused = isinstance(error, BackboneError | UnsupportedError)
            if size == own or not (refused or is_out_of_memory(error)):
                raise
            break  # a still larger size would not fit either
        rows[size] = {"image_size": size, **row}
    if len(rows) < 2:
        return {"selected": own, "candidates": [], "margin": None, "summary": ""}
    sizes = list(rows)
    margins = {size: compare_masks(counts[size], counts[own]) for size in sizes[1:]}
    best = max(margins, key=lambda size: margins[size]["gain"])
    margin = margins[best]
    is_above = margin["gain"] > margin["error"]
    images = f"{rows[own]['images']} images of val"
    words = (
        f"images of {best} px: the probe has {100 * rows[best]['score']:.1f} % mean IoU, {100 * margin['gain']:.1f} "
        f"points (95 % interval {100 * margin['low']:.1f} to {100 * margin['high']:.1f}) above {own} px on {images}; a "
        f"prediction computes about {(best / own) ** 2:.1f} times as much (--image-size {own} keeps {own} px)"
        if is_above
        else f"images of {own} px: the probe at {' and '.join(map(str, sizes[1:]))} px is not above that by more than "
        f"the error on {images}"
    )
    return {
        "selected": best if is_above else own,
        "candidates": list(rows.values()),
        "margin": margin,
        "summary": words,
    }


def _larger_sizes(backbone: str, own: int) -> list[int]:
    """Return larger sides of an image, multiples of the stride of the deepest map."""
    module = load_backbone(backbone, device="meta").module
    stride = max((stage["reduction"] for stage in getattr(module, "feature_info", [])), default=32)
    sides = [stride * math.floor(factor * own / stride + 0.5) for factor in _ENLARGEMENTS]
    return [side for side in sides if own < side <= MAX_SIZE]


def _images_in(seconds: float, each: float) -> int:
    """Return how many images of train and of val fit into a time, at most as many as rank."""
    return min(_MOST_IMAGES, int(max(0.0, seconds) / max(1e-9, each)))


def _score_probe(search: MaskSearch, count: int) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Return a row of JSON values for a probe of some images, and the counts of the pixels of each image of val."""
    data, head = search.data, find_linear_head(search.bare_backbone)
    val = data.images["val"]
    scored = data.dataset.splits["val"].select(evenly(val, min(val, count)))
    job = search.job(HEAD_ALONE, 0, head=head, lda=min(len(data.labeled), count))
    model, _ = train_model(job, search.training_data(job), search.callback, search.device)
    images = search.score(model, replace(data.dataset, splits={"val": scored}), "val")
    score = sum_scores(images, model.num_classes).mean_per_class
    return {"head": head, "score": score, "images": len(images)}, count_pixels(images)
