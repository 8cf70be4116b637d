"""Predictions from the logits of a model, by the kind of its labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.core.prediction import Prediction
from vpt.errors import TrainingError


def to_prediction(
    image: str, logits: NDArray[Any], classes: Sequence[str] | None, label_kind: Mapping[str, Any], top: int
) -> Prediction:
    """Return the prediction for one image.

    Args:
        image: Name of the image.
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
        return Prediction(image, (), value=float(_require_finite(values * label_kind["std"] + label_kind["mean"])[0]))
    names = [str(index) for index in range(len(values))] if classes is None else list(classes)
    if label_kind["name"] == "multi_label":
        with np.errstate(over="ignore"):  # of a probability that is 0
            probabilities = 1 / (1 + np.exp(-values))
        has = dict(zip(names, probabilities >= np.array(label_kind["thresholds"] or 0.5), strict=True))
        ranked = _rank(probabilities, names, len(names))
        return Prediction(image, ranked[:top], labels=tuple(pair for pair in ranked if has[pair[0]]))
    with np.errstate(over="ignore"):
        scaled = _require_finite(values / label_kind.get("temperature", 1.0))
    exponentials = np.exp(scaled - scaled.max())
    return Prediction(image, _rank(exponentials / exponentials.sum(), names, top))


def _require_finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise TrainingError(
            "outputs of the model are NaN or infinite, so there is no prediction: its weights are too large, or the "
            "file is damaged; export it again from the tuned file"
        )
    return values


def _rank(probabilities: NDArray[np.float64], names: Sequence[str], top: int) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")[:top]
    return tuple((names[index], float(probabilities[index])) for index in order)
