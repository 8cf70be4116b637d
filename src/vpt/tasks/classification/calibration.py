"""Choices on val after training: the temperature of probabilities, and thresholds of labels."""

from torch import Tensor

from vpt.core.text import pluralize
from vpt.model.label_kinds import LabelKind, MultiLabel, SingleLabel
from vpt.training import score_logits


def describe_calibration(kind: LabelKind, logits: Tensor, labels: Tensor) -> str:
    """Return a note about the temperature that was fitted on val.

    Args:
        kind: The kind of labels, with the temperature.
        logits: Logits of the val images (n, classes).
        labels: Their classes (n,).

    Returns:
        The temperature with the calibration error before and after it, or why it stays 1.
    """
    assert isinstance(kind, SingleLabel)
    before, after = score_logits(logits, labels), score_logits(kind.scale(logits), labels)
    images = pluralize(len(labels), "val image")
    if kind == SingleLabel():
        reason = "every prediction is right" if before.accuracy == 1 else "predictions are no better than chance"
        return f"the temperature stays 1: {reason} for the {images}, so that none is best; more val images help"
    assert before.calibration_error is not None and after.calibration_error is not None
    errors = f"{100 * before.calibration_error:.2f} % to {100 * after.calibration_error:.2f} %"
    return f"probabilities have the temperature {kind.temperature:.4g}: calibration error of {images} from {errors}"


def notes_on_scores(kind: LabelKind, split: str) -> list[str]:
    """Return notes on scores that depend on what was chosen on the scored split.

    Args:
        kind: The kind of labels, with its temperature or thresholds.
        split: Name of the scored split.

    Returns:
        The notes; none for other splits than val.
    """
    if split != "val":
        return []
    if isinstance(kind, MultiLabel) and kind.thresholds:
        return [
            "the thresholds of the labels were chosen on val, so precision, recall and F1 of val are higher than those "
            "of new images; mAP has no threshold"
        ]
    if isinstance(kind, SingleLabel) and kind.temperature != 1:
        return ["the temperature was fitted on val, so the calibration error of val is lower than that of new images"]
    return []
