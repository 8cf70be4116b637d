"""Images of none of the classes: the threshold of the confidence under which a prediction is rejected."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.core.text import pluralize
from vpt.errors import SpecError
from vpt.model.label_kinds import LabelKind
from vpt.training import Scores


def check_rejection(
    kind: LabelKind,
    min_confidence: float | None,
    foreign: str | Path | None = None,
    false_accept: float | None = None,
) -> None:
    """Check the options of rejection.

    Args:
        kind: The kind of labels that the model predicts.
        min_confidence: Least probability of the most likely class, or None.
        foreign: Folder of images of none of the classes. Default: none.
        false_accept: Share of the foreign images that may be accepted. Default: none is given.

    Raises:
        SpecError: An option is out of range, or has no meaning for this kind or beside the others.
    """
    given = {"min_confidence": min_confidence, "foreign": foreign, "false_accept": false_accept}
    for name, value in given.items():
        if value is not None and kind.name != "single_label":
            raise SpecError(
                f'{name} is {value}, and the model predicts {kind.name}; "none of these" takes the place of one class '
                "an image, so leave it out"
            )
    if min_confidence is not None and not min_confidence >= 0:
        raise SpecError(f"min_confidence is {min_confidence:g}; it must be at least 0")
    if false_accept is None:
        return
    if foreign is None or min_confidence is not None:
        raise SpecError(
            f"false_accept is {false_accept:g}: it chooses min_confidence by foreign images; give it with foreign alone"
        )
    if not 0 <= false_accept < 1:
        raise SpecError(f"false_accept is {false_accept:g}; it must be at least 0 and below 1")


def threshold_at(foreign: NDArray[Any], false_accept: float) -> float:
    """Return the lowest threshold of six digits that at most a share of foreign images reaches.

    Args:
        foreign: Confidences of foreign images (n,).
        false_accept: The share, at least 0 and below 1.

    Returns:
        The threshold; above 1 where too many confidences are 1.
    """
    highest = np.sort(np.asarray(foreign, np.float64))[::-1]
    accepted = min(len(highest) - 1, math.floor(false_accept * len(highest) + 1e-9))  # 0.29 * 100 is below 29
    refused = float(highest[accepted])
    return (math.floor(1e6 * refused + 1e-6) + 1) / 1e6  # 1e-6: products such as 289999.99999999994


def measure_rejection(
    scores: Scores, min_confidence: float | None, foreign: NDArray[Any] | None, false_accept: float
) -> dict[str, Any]:
    """Measure which images a threshold accepts.

    Args:
        scores: Scores of images of the classes.
        min_confidence: The threshold, or None for the one that `false_accept` gives.
        foreign: Confidences of images of none of the classes (n,), or None.
        false_accept: Share of the foreign images that may be accepted.

    Returns:
        "min_confidence", the share "accepted" of the images of the classes and "top1" of these, None where there are
        none; with foreign images their number "foreign", the share "false_accept" that is accepted, and the area under
        the ROC curve, "auroc".
    """
    from sklearn.metrics import roc_auc_score  # slow import

    assert scores.confidences is not None
    if min_confidence is None:
        assert foreign is not None
        min_confidence = threshold_at(foreign, false_accept)
    classes, cells = len(scores.confusion), scores.counts.indices
    accepted = scores.confidences >= min_confidence
    right = (cells // classes == cells % classes)[accepted]
    found: dict[str, Any] = {
        "min_confidence": min_confidence,
        "accepted": float(accepted.mean()),
        "top1": float(right.mean()) if len(right) else None,
    }
    if foreign is None:
        return found
    is_known = np.repeat([1, 0], [len(accepted), len(foreign)])
    auroc = float(roc_auc_score(is_known, np.concatenate([scores.confidences, foreign])))
    return {**found, "foreign": len(foreign), "false_accept": float((foreign >= min_confidence).mean()), "auroc": auroc}


def describe_rejection(rejection: dict[str, Any]) -> list[str]:
    """Return what a threshold accepts as lines of text.

    Args:
        rejection: The values of `measure_rejection`.

    Returns:
        The lines.
    """
    top1 = "" if rejection["top1"] is None else f", top-1 {100 * rejection['top1']:.2f} % of these"
    lines = [f"min confidence {rejection['min_confidence']:.7g}: {100 * rejection['accepted']:.1f} % accepted{top1}"]
    if "foreign" in rejection:
        lines.append(
            f"{pluralize(rejection['foreign'], 'foreign image')}: {100 * rejection['false_accept']:.1f} % accepted, "
            f"AUROC {rejection['auroc']:.4f}"
        )
    return lines
