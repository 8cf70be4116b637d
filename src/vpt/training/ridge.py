"""Ridge regression on class targets of -1 and 1, or on numbers, with the exact predictions for left-out images.

One eigendecomposition serves all penalties. A linear smoother with the hat matrix H predicts a left-out group g of
images by y_g - (I - H_gg)^-1 r_g, where r are the residuals of the fit to all images.

Penalty and scale of the logits minimize a log loss whose targets are smoothed by 1 / (n + 2), after Platt (1999): where
all left-out images are predicted right, the plain log loss falls with the scale without end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # loads its parts when they are used
from numpy.typing import NDArray

from vpt.data.label_kinds import kind_of_labels

PENALTIES: tuple[float, ...] = tuple(float(f"{penalty:.3g}") for penalty in np.logspace(-3, 3, 13))

MAX_COMPARED = 8192  # images whose pairs `near_copies` compares

_NEAR_COPY = 0.98  # cosine of features from which two images are copies of one another
_SAME_IMAGE = 0.9995  # cosine of features of one image, decoded or scaled otherwise
_JITTER = 1e-9  # added to the diagonal of I - H_gg, which is singular for a group of all images
_TEMPERATURES = (-3.0, 7.0)  # bounds of the logarithm of the factor of the logits


@dataclass(frozen=True)
class LeftOut:
    """Predictions for images that did not take part in the fit.

    Attributes:
        penalty: Penalty of the squared weights.
        scale: Factor of the logits, which minimizes their smoothed log loss; 1 for numbers.
        logits: Logits after that factor (n, classes), or predicted numbers (n, 1).
        log_loss: Mean log loss of the logits, or mean squared error of the numbers.
        smoothed_loss: The same with smoothed targets, by which penalties are compared.
        gain: Loss of the shares of the classes, or of the mean of the numbers, minus `smoothed_loss`.
        gain_error: Standard error of that paired difference over the images.
    """

    penalty: float
    scale: float
    logits: NDArray[np.float64]
    log_loss: float
    smoothed_loss: float
    gain: float
    gain_error: float

    @property
    def is_at_chance(self) -> bool:
        """True if the features say nothing beyond the shares of the classes, as where a class has one image."""
        return self.gain <= self.gain_error


class Ridge:
    """Ridge regression from features to class targets of -1 and 1, or to numbers, with an intercept.

    Every feature is standardized, and every group of features gets the same share of the total variance, which is 1.
    """

    def __init__(
        self, features: NDArray[np.floating], columns: Sequence[slice], labels: NDArray[Any], num_classes: int
    ) -> None:
        """Decompose the features.

        Args:
            features: Features (n, width), possibly memory-mapped.
            columns: Groups of features, in the order of the weights.
            labels: Class of each image (n,), several labels (n, classes), or standardized numbers, float (n,).
            num_classes: Number of classes.
        """
        self.labels: NDArray[Any] = labels
        targets = _make_targets(labels, num_classes)
        self.intercept: NDArray[np.float64] = targets.mean(0)
        self._targets = targets - self.intercept
        self._groups = [np.array(features[:, group], np.float64) for group in columns]
        self.means: list[NDArray[np.float64]] = [group.mean(0) for group in self._groups]
        self.factors: list[NDArray[np.float64]] = [_factors(group, len(columns)) for group in self._groups]
        for group, mean, factor in zip(self._groups, self.means, self.factors, strict=True):
            group -= mean
            group *= factor
        self._decompose()

    def _decompose(self) -> None:
        """Find orthogonal directions: `_scores` of the images along them, and their squared lengths `_values`."""
        count, width = len(self.labels), sum(group.shape[1] for group in self._groups)
        if count <= width:
            values, vectors = np.linalg.eigh(sum(group @ group.T for group in self._groups))
        else:
            joined = np.concatenate(self._groups, axis=1)
            values, vectors = np.linalg.eigh(joined.T @ joined)
        kept = values > 1e-10 * max(values.max(initial=0.0), 1e-300)
        self._values, roots = values[kept], np.sqrt(values[kept])
        if count <= width:
            self._scores = vectors[:, kept] * roots
            self._directions = [group.T @ (vectors[:, kept] / roots) for group in self._groups]
        else:
            self._scores = joined @ vectors[:, kept]
            splits = np.cumsum([group.shape[1] for group in self._groups])[:-1]
            self._directions = np.split(vectors[:, kept], splits)
        self._projected = self._scores.T @ self._targets
        self._groups = []

    def leave_out(self, penalty: float, groups: NDArray[np.int64] | None = None) -> LeftOut:
        """Predict every image from the images of the other groups.

        Args:
            penalty: Penalty of the squared weights, of features with the total variance 1.
            groups: Group of each image (n,). Default: every image is a group.

        Returns:
            The predictions.
        """
        count, shrunk = len(self.labels), self._scores / (self._values + penalty)
        residuals = self._targets - shrunk @ self._projected
        hats = 1 / count + (shrunk * self._scores).sum(1)
        errors = residuals / np.maximum(1 - hats, 1e-9)[:, None]
        for members in _larger_groups(groups):
            if len(members) == count:  # no image is left to fit to
                errors = self._targets + self.intercept
                break
            parts = self._scores[members] / np.sqrt(self._values + penalty)  # H_gg = U U^T, where U is:
            parts = np.column_stack([parts, np.full(len(members), 1 / np.sqrt(count))])
            errors[members] = _solve_complement(parts, residuals[members])
        logits = self._targets + self.intercept - errors
        kind = kind_of_labels(self.labels)
        alone = kind == "single_label" and int(np.bincount(self.labels).max()) == 1  # every prediction here is wrong
        scale = 1.0 if kind == "regression" or alone else find_scale(logits, self.labels)
        logits *= scale
        losses = log_losses(logits, self.labels, 1 / (count + 2))
        gains = log_losses(_chance_logits(self.labels, logits.shape[1]), self.labels, 1 / (count + 2)) - losses
        error = float(gains.std() / np.sqrt(count))
        plain = log_loss(logits, self.labels)
        return LeftOut(penalty, scale, logits, plain, float(losses.mean()), float(gains.mean()), error)

    def best(self, groups: NDArray[np.int64] | None = None) -> LeftOut:
        """Predict every image with the penalty of `PENALTIES` that has the lowest smoothed log loss.

        Args:
            groups: As for `leave_out`.

        Returns:
            The predictions.
        """
        return min((self.leave_out(penalty, groups) for penalty in PENALTIES), key=lambda found: found.smoothed_loss)

    def solve(self, penalty: float, scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return a linear layer that is fitted to all images.

        Args:
            penalty: Penalty of the squared weights.
            scale: Factor of the logits.

        Returns:
            Weights (classes, width) and biases (classes,), for features as they are.
        """
        coefficients = self._projected / (self._values + penalty)[:, None]
        weights = [
            (factor[:, None] * (direction @ coefficients)).T
            for factor, direction in zip(self.factors, self._directions, strict=True)
        ]
        bias = self.intercept - sum(weight @ mean for weight, mean in zip(weights, self.means, strict=True))
        return scale * np.concatenate(weights, axis=1), scale * bias


def _make_targets(labels: NDArray[Any], num_classes: int) -> NDArray[np.float64]:
    """Return -1 and 1 for classes, and numbers as they are (n, classes)."""
    if kind_of_labels(labels) == "regression":
        return labels[:, None].astype(np.float64)
    has_class = labels > 0 if labels.ndim == 2 else np.arange(num_classes) == labels[:, None]
    return np.where(has_class, 1.0, -1.0)


def _factors(group: NDArray[np.float64], num_groups: int) -> NDArray[np.float64]:
    deviations, width = group.std(0), group.shape[1]
    factors: NDArray[np.float64] = 1 / (np.maximum(deviations, 1e-6) * np.sqrt(width * num_groups))
    return np.where(deviations > 1e-6, factors, 0.0)


def _larger_groups(groups: NDArray[np.int64] | None) -> list[NDArray[np.int64]]:
    """Return the images of every group of at least two."""
    if groups is None:
        return []
    return [np.flatnonzero(groups == group) for group in np.flatnonzero(np.bincount(groups) > 1)]


def _solve_complement(parts: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (I - U U^T)^-1 values for U of shape (g, r), by a system of the smaller of g and r (Woodbury)."""
    count, rank = parts.shape
    if count <= rank:
        system = (1 + _JITTER) * np.eye(count) - parts @ parts.T
        return np.asarray(scipy.linalg.solve(system, values, assume_a="pos"))
    system = (1 + _JITTER) * np.eye(rank) - parts.T @ parts
    return np.asarray(values + parts @ scipy.linalg.solve(system, parts.T @ values, assume_a="pos"))


def _chance_logits(labels: NDArray[Any], num_classes: int) -> NDArray[np.float64]:
    """Return logits (n, classes) of the shares of the classes, each image counted once more, or the mean of numbers."""
    if kind_of_labels(labels) == "regression":
        return np.zeros((len(labels), 1))
    if labels.ndim == 2:
        counts = labels.sum(0, dtype=np.float64) + 1
        logits = np.log(counts) - np.log(len(labels) + 2 - counts)
    else:
        logits = np.log(np.bincount(labels, minlength=num_classes) + 1.0)
    return np.broadcast_to(logits, (len(labels), num_classes))


def find_scale(logits: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """Return the factor of logits that minimizes their smoothed log loss: the inverse of a temperature.

    Args:
        logits: Logits (n, classes).
        labels: Class of each image (n,), or several labels (n, classes).

    Returns:
        The factor.
    """
    smoothing = 1 / (len(labels) + 2)
    found = scipy.optimize.minimize_scalar(
        lambda x: log_loss(np.exp(x) * logits, labels, smoothing),
        bounds=_TEMPERATURES, method="bounded", options={"xatol": 1e-3},
    )  # fmt: skip
    return float(np.exp(found.x))


def log_loss(logits: NDArray[np.float64], labels: NDArray[Any], smoothing: float = 0.0) -> float:
    """Return the mean of `log_losses`, which has the arguments."""
    return float(log_losses(logits, labels, smoothing).mean())


def log_losses(logits: NDArray[np.float64], labels: NDArray[Any], smoothing: float = 0.0) -> NDArray[np.float64]:
    """Return the log loss of each image, the mean over its labels if it has several, or the squared error of a number.

    Args:
        logits: Logits (n, classes), or predicted numbers (n, 1).
        labels: Class of each image (n,), several labels (n, classes), or numbers, float (n,).
        smoothing: Share of each target that goes to all classes alike, or to both values of each label. Default: 0.

    Returns:
        The losses (n,).
    """
    kind = kind_of_labels(labels)
    if kind == "regression":
        return np.asarray((logits[:, 0] - labels) ** 2)
    if kind == "multi_label":
        targets = (1 - smoothing) * labels + smoothing / 2
        return np.asarray((np.logaddexp(0, logits) - targets * logits).mean(1))
    log_shares = scipy.special.log_softmax(logits, axis=1)
    losses = -(1 - smoothing) * log_shares[np.arange(len(labels)), labels]
    return np.asarray(losses - smoothing * log_shares.mean(1) if smoothing else losses)


def near_copies(features: NDArray[np.floating], groups: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Group images that are nearly copies of one another: chains of standardized features with a cosine above 0.98.

    Where a chain joins more than half of the images, which then look alike, only those of it are joined whose cosine is
    above 0.9995.

    Args:
        features: Features (n, width).
        groups: Known group of each image (n,), whose images stay together. Default: none are known.

    Returns:
        Group of each image (n,); images without a copy are alone. More than 8,192 images are not compared.
    """
    count = len(features)
    known = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64)
    if count > MAX_COMPARED:
        return known
    values = np.asarray(features, np.float32)
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-6)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    found = _link(values, known, _NEAR_COPY)
    sizes = np.bincount(found)
    if sizes.max() > max(count / 2, np.bincount(known).max()):
        rows = np.flatnonzero(found == sizes.argmax())
        found[rows] = count + _link(values[rows], known[rows], _SAME_IMAGE)
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _link(values: NDArray[np.float32], known: NDArray[np.int64], least: float) -> NDArray[np.int64]:
    """Return the group of each image in chains of a cosine above `least` and of known groups (n,)."""
    count, links = len(values), list[tuple[NDArray[np.int64], NDArray[np.int64]]]()
    for start in range(0, count, 512):
        rows, columns = np.nonzero(values[start : start + 512] @ values.T > least)
        links.append((rows + start, columns))
    _, first, index = np.unique(known, return_index=True, return_inverse=True)
    links.append((np.arange(count), first[index]))
    pairs = np.concatenate(links, axis=1)
    graph = scipy.sparse.coo_array((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), (count, count))
    found: NDArray[np.int64] = scipy.sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
    return found
