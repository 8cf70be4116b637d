"""The choice among backbones in segmentation, by frozen probes that are solved for: forward passes only."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.search.context import SearchContext
from vpt.search.mask_candidates import HEAD_ALONE, MaskSearch, find_linear_head
from vpt.search.mask_comparison import FEWEST_IMAGES, compare_masks, count_pixels
from vpt.search.mask_costs import measure_scoring, measure_solving
from vpt.tasks.segmentation.prediction import evenly, sum_scores
from vpt.tasks.segmentation.task import SegmentationData, SegmentationTask
from vpt.tuning import train_model

_MOST_IMAGES = 200  # of train, and of val, that rank backbones
_SHARE = 0.2  # of the budget that ranking may take


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
    ranking = context.decisions.decide("backbone", lambda: _rank(context, data))
    context.callback.on_note(ranking["words"])
    return _search(context, data, ranking["chosen"]).data, str(ranking["chosen"]), ranking


def _search(context: SearchContext, data: SegmentationData, backbone: str) -> MaskSearch:
    """Return a search with the data of another backbone."""
    job = context.request.job(backbone, HEAD_ALONE.method)
    loaded = SegmentationTask().load_backbone(job)  # which may be a download
    notes = [*loaded.notes, *(note for note in data.notes if note not in data.backbone.notes)]
    data = replace(data, backbone=loaded, notes=notes)
    return MaskSearch(**vars(context), data=data, backbone=backbone, costs={})


def _rank(context: SearchContext, data: SegmentationData) -> dict[str, Any]:
    names = context.request.backbones
    val = data.images.get("val", 0)
    if val < FEWEST_IMAGES:
        words = f"backbone {names[0]}, the first: {val} images of val rank no backbones"
        return {"chosen": names[0], "rows": [], "margin": None, "words": words}
    seconds = _SHARE * context.budget.seconds
    each = 0.0  # of an image of train and one of val, for all backbones
    for name in names:
        search = _search(context, data, name)
        features, solving, model = measure_solving(search)
        each += features + measure_scoring(search, model)
        seconds -= solving
    count = max(FEWEST_IMAGES, min(_MOST_IMAGES, int(seconds / max(1e-9, each))))
    scored = data.dataset.splits["val"].select(evenly(val, min(val, count)))
    counts, rows = dict[str, NDArray[np.int64]](), list[dict[str, Any]]()
    for name in names:
        search = _search(context, data, name)
        head = find_linear_head(search.bare_backbone)
        job = search.job(HEAD_ALONE, 0, head=head, lda=min(len(data.labeled), count))
        model, _ = train_model(job, search.training_data(job), context.callback, context.device)
        images = search.score(model, replace(data.dataset, splits={"val": scored}), "val")
        counts[name], total = count_pixels(images), sum_scores(images, model.num_classes)
        rows.append({"backbone": name, "head": head, "score": total.mean_per_class, "images": len(images)})
    best, second = sorted(rows, key=lambda row: -row["score"])[:2]
    margin = compare_masks(counts[best["backbone"]], counts[second["backbone"]])
    words = (
        f"backbone {best['backbone']}: its frozen probe has {100 * best['score']:.1f} % mean IoU, "
        f"{100 * margin['gain']:.1f} points (95 % interval {100 * margin['low']:.1f} to {100 * margin['high']:.1f}) "
        f"above {second['backbone']} on {len(scored)} images of val"
    )
    return {"chosen": best["backbone"], "rows": rows, "margin": margin, "words": words}
