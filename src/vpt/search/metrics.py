"""Metrics of a search, as functions of how often each image counts, which the bootstrap resamples."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.core.metrics import PLAIN_METRICS
from vpt.tasks.classification.labels.multi_label import AveragePrecision
from vpt.tasks.classification.metrics import METRICS
from vpt.training.evaluation import divide_or_nan, make_rates, nan_mean

Statistic = Callable[[NDArray[np.int64] | None], float]

_ROUNDING = 1e-12  # of the largest number: the most by which a mean of equal ones is off


def make_statistic(outputs: NDArray[Any], labels: NDArray[Any], metric: str) -> Statistic:
    """Return a metric of outputs as a function of the weights of the images.

    Args:
        outputs: Logits (n, classes), or predicted numbers (n, 1), in the unit of the labels.
        labels: Class of each image (n,), several labels (n, classes), or numbers (n,).
        metric: A key of `METRICS`, of the kind of the labels.

    Returns:
        Function of how often each image counts (n,), or of None for once. Without any case, the metric is 0; R² of a
        draw of equal numbers is NaN.
    """
    kind, ones = METRICS[metric].kind, np.ones(len(labels), np.int64)
    if kind == "single_label":
        predicted, num_classes = outputs.argmax(1), outputs.shape[1]
        return lambda weights: score(predicted, labels, num_classes, metric, weights)
    if kind == "multi_label":
        average_precision = AveragePrecision(labels, outputs)
        return lambda weights: float(np.nan_to_num(nan_mean(average_precision(ones if weights is None else weights))))
    truth, errors = labels.astype(np.float64), outputs[:, 0] - labels
    rounding = _ROUNDING * np.abs(truth).max(initial=0)

    def of_numbers(weights: NDArray[np.int64] | None) -> float:
        given = ones if weights is None else weights
        if metric == "mae":
            return float(given @ np.abs(errors) / given.sum())
        deviations = truth - given @ truth / given.sum()
        squares = float(given @ deviations**2)
        if squares <= given.sum() * rounding**2:  # R² of equal numbers is not defined
            return float(not errors.any()) if weights is None else float("nan")
        return float(1 - (given @ errors**2) / squares)

    return of_numbers


def score(
    predicted: NDArray[np.int64],
    labels: NDArray[np.int64],
    num_classes: int,
    metric: str,
    weights: NDArray[np.int64] | None = None,
) -> float:
    """Return a metric of predicted classes.

    Args:
        predicted: Predicted class of each image (n,).
        labels: Class of each image (n,).
        num_classes: Number of classes.
        metric: "top1", "macro_f1" or "balanced_accuracy".
        weights: How often each image counts (n,). Default: once.

    Returns:
        The metric, between 0 and 1, over the classes that occur, and for F1 those that are predicted.
    """
    hits = predicted == labels
    given = np.ones(len(labels), np.int64) if weights is None else weights
    if metric == "top1":
        return float(given @ hits / max(1, given.sum()))
    right, true, found = (
        np.bincount(rows, counts, num_classes)
        for rows, counts in ((labels, given * hits), (labels, given), (predicted, given))
    )
    is_recall = metric == "balanced_accuracy"
    values = divide_or_nan(right, true) if is_recall else make_rates(right, true, found)["f1"]
    return float(np.nan_to_num(nan_mean(values)))


def describe_value(metric: str, value: float) -> str:
    """Return a value with the name of its metric, such as "97.5 % top-1" or "R² 0.834"."""
    label = METRICS[metric].label
    return f"{label} {value:.3g}" if metric in PLAIN_METRICS else f"{100 * value:.1f} % {label}"


def describe_bounds(metric: str, low: float, high: float) -> str:
    """Return an interval of a metric, such as "90.1 to 98.2", which are percent, or "0.7 to 0.85"."""
    if metric in PLAIN_METRICS:
        return f"{low:.3g} to {high:.3g}"
    return f"{100 * low:.1f} to {100 * high:.1f}"


def describe_gain(metric: str, gain: float) -> str:
    """Return a difference of a metric, such as "2.3 points", "1.2 points of mAP" or "0.02 of R²"."""
    if metric in PLAIN_METRICS:
        return f"{gain:.3g} of {METRICS[metric].label}"
    return f"{100 * gain:.1f} points" + ("" if metric == "top1" else f" of {METRICS[metric].label}")
