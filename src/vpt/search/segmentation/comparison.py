"""Paired comparison of two segmentation models on the same images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vpt.core.text import pluralize
from vpt.tasks.segmentation.prediction import PixelScores
from vpt.training.bootstrap import bootstrap, percentile_interval

FEWEST_IMAGES = 3  # that can tell two models apart


def count_pixels(scores: Sequence[PixelScores]) -> NDArray[np.int64]:
    """Return what the IoU of each class is made of.

    Args:
        scores: Scores of each image.

    Returns:
        Counts of each image (n, 3, classes): pixels of a class that are predicted as it, those of it, those predicted.
    """
    confusions = [image.confusion for image in scores]
    return np.stack([np.stack([each.diagonal(), each.sum(1), each.sum(0)]) for each in confusions])


def compare_masks(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> dict[str, float]:
    """Compare the mean IoU of two models on the same images.

    Args:
        ours: Counts of `count_pixels`, of one model.
        theirs: Those of the other.

    Returns:
        "gain", its 95 % interval "low" and "high", and its "error", by resampling images.
    """

    def gain(weights: NDArray[np.int64]) -> float:
        first, second = (PixelScores.main_metric(*np.tensordot(weights, counts, 1)) for counts in (ours, theirs))
        return first - second

    values = bootstrap(np.arange(len(ours)), gain)
    low, high = percentile_interval(values)
    whole = gain(np.ones(len(ours), np.int64))
    return {"gain": whole, "low": low, "high": high, "error": float(values.std())}


def describe_masks(comparison: dict[str, float], noun: str, images: int, rival: str = "the head alone") -> str:
    """Return the comparison with the head alone, or with the probe, in words.

    Args:
        comparison: That of `compare_masks`.
        noun: The other models, a plural such as "prompts".
        images: Number of images.
        rival: What they are compared with. Default: "the head alone".

    Returns:
        Such as "prompts beat the head alone by 2.3 points of mean IoU (95 % interval 0.4 to 4.1, 50 images)".
    """
    gain = comparison["gain"]
    if gain == 0:
        return f"{noun} have the mean IoU of {rival} ({pluralize(images, 'image')})"
    verb, sign = ("beat", 1) if gain > 0 else ("are below", -1)
    bounds = sorted((100 * sign * comparison["low"], 100 * sign * comparison["high"]))
    if images < FEWEST_IMAGES:
        gained = f"{abs(100 * gain):.1f} points of mean IoU"
        return f"{noun} {verb} {rival} by {gained} ({pluralize(images, 'image')}, too few for an interval)"
    return f"{noun} {verb} {rival} by {abs(100 * gain):.1f} points of mean IoU (95 % interval "\
           f"{bounds[0]:.1f} to {bounds[1]:.1f}, {pluralize(images, 'image')})"  # fmt: skip
