"""Predictions from the logits of a model, by the kind of its labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.core.text import format_number
from vpt.errors import TrainingError


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image: its class, its labels or its number.

    Attributes:
        top: Pairs of a class and its probability, most likely first; empty where a number is predicted.
        labels: Pairs of a class that the image has and its probability, most likely first, where an image may have
            several; else None.
        value: The predicted number, in the unit of the training labels; None where classes are predicted.
    """

    top: tuple[tuple[str, float], ...] = ()
    labels: tuple[tuple[str, float], ...] | None = None
    value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON values."""
        if self.value is not None:
            return {"value": self.value}
        labels = {} if self.labels is None else {"labels": _to_dicts(self.labels)}
        return {**labels, "top": _to_dicts(self.top)}

    def describe(self) -> str:
        """Return the prediction as a few words."""
        if self.value is not None:
            return format_number(self.value)
        if self.labels == ():
            return f"no label ({self.top[0][0]} {100 * self.top[0][1]:.1f} %)"
        return ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in self.labels or self.top)


def to_prediction(
    logits: NDArray[Any], classes: Sequence[str] | None, label_kind: Mapping[str, Any], top: int
) -> Prediction:
    """Return the prediction for one image.

    Args:
        logits: Outputs of the model (classes,).
        classes: Names of the classes, or None for their numbers.
        label_kind: The kind of labels, as the graph records it.
        top: Number of classes to name.

    Returns:
        The prediction.

    Raises:
        TrainingError: An output is NaN or infinite.
    """
    values = _require_finite(logits.astype(np.float64))
    if label_kind["name"] == "regression":
        return Prediction(value=float(_require_finite(values * label_kind["std"] + label_kind["mean"])[0]))
    names = [str(index) for index in range(len(values))] if classes is None else list(classes)
    if label_kind["name"] == "multi_label":
        with np.errstate(over="ignore"):  # of a probability that is 0
            probabilities = 1 / (1 + np.exp(-values))
        has = dict(zip(names, probabilities >= np.array(label_kind["thresholds"] or 0.5), strict=True))
        ranked = _rank(probabilities, names, len(names))
        return Prediction(ranked[:top], tuple(pair for pair in ranked if has[pair[0]]))
    with np.errstate(over="ignore"):
        scaled = _require_finite(values / label_kind.get("temperature", 1.0))
    exponentials = np.exp(scaled - scaled.max())
    return Prediction(_rank(exponentials / exponentials.sum(), names, top))


def _require_finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise TrainingError(
            "outputs of the model are NaN or infinite, so there is no prediction: its weights are too large, or the "
            "file is damaged; export it again from the tuned file"
        )
    return values


def _to_dicts(pairs: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"class": name, "probability": value} for name, value in pairs]


def _rank(probabilities: NDArray[np.float64], names: Sequence[str], top: int) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")[:top]
    return tuple((names[index], float(probabilities[index])) for index in order)
