"""Any number of classes for each image."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vpt.core.prediction import Prediction
from vpt.model.label_kinds import MultiLabel
from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.classification.labels.base import LabelTask, rank_classes
from vpt.tasks.classification.losses import Loss, binary_cross_entropy, binary_focal_loss, parse_class_weights
from vpt.training.bootstrap import bootstrap, rate_interval, resamples_for
from vpt.training.evaluation import NO_CONFUSION, Scores, make_rates, nan_mean


@dataclass(frozen=True, kw_only=True)
class MultiLabelScores(Scores):
    """Scores of several labels of an image.

    Attributes:
        picture: Name of the picture of these scores.
        probabilities: Probabilities (n, classes).
        labels: 0 or 1 (n, classes).
        decided: True for each class that a prediction has (n, classes).
    """

    picture: ClassVar[str] = "classes"

    probabilities: NDArray[np.float32]
    labels: NDArray[np.float32]
    decided: NDArray[np.bool_]

    @property
    def per_class(self) -> NDArray[np.float64]:
        """Average precision of each class, as scikit-learn defines it; NaN for a class without images."""
        return AveragePrecision(self.labels, self.probabilities)(np.ones(len(self.labels)))

    @property
    def mean_average_precision(self) -> float:
        """Mean of `per_class` over the classes that have images."""
        return nan_mean(self.per_class)

    @property
    def class_rates(self) -> dict[str, NDArray[np.float64]]:
        """Precision, recall and F1 of each class, as scikit-learn defines them, between 0 and 1.

        A rate without any case is 0. A class that neither occurs nor is predicted has NaN.
        """
        return make_rates((self.labels * self.decided).sum(0), self.labels.sum(0), self.decided.sum(0))

    @property
    def support(self) -> NDArray[np.int64]:
        """Number of images of each class (classes,)."""
        return np.asarray(self.labels.sum(0), np.int64)

    def intervals(self, groups: NDArray[np.int64] | None = None) -> dict[str, tuple[float, float]]:
        """Return the 95 % intervals of mean average precision and of macro F1, by the bootstrap over images.

        Args:
            groups: Group of each image (n,); images of a group are drawn together. Default: those of the scores.

        Returns:
            Lower and upper bound by name of the metric.
        """
        groups = self.groups if groups is None else groups
        average_precision, hits = AveragePrecision(self.labels, self.probabilities), self.labels * self.decided

        def statistic(weights: NDArray[np.int64]) -> tuple[float, float]:
            rates = make_rates(weights @ hits, weights @ self.labels, weights @ self.decided)
            return nan_mean(average_precision(weights)), nan_mean(rates["f1"])

        values = bootstrap(np.arange(len(self.labels)), statistic, groups=groups, resamples=resamples_for(self.labels))
        units = len(self.labels) if groups is None else len(np.unique(groups))
        return {name: rate_interval(column, units) for name, column in zip(("map", "macro_f1"), values.T, strict=True)}

    @property
    def num_images(self) -> int:
        """Number of scored images."""
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """The main metric, mean average precision."""
        return self.mean_average_precision

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by name, the main one first."""
        return {"map": self.mean_average_precision, "macro_f1": self.macro["f1"]}


class AveragePrecision:
    """Average precision of classes, for any weights of the images, by one sort."""

    def __init__(self, labels: NDArray[np.floating], probabilities: NDArray[np.floating]) -> None:
        """Sort the images by probability.

        Args:
            labels: 0 or 1 (n, classes).
            probabilities: Probabilities (n, classes).
        """
        self._order = np.argsort(-probabilities, axis=0, kind="stable")
        self._labels = np.take_along_axis(labels, self._order, 0).astype(np.float64)
        found = np.take_along_axis(probabilities, self._order, 0)
        count = len(labels)
        is_end = np.append(found[1:] < found[:-1], np.ones_like(found[:1], bool), 0)  # of equal probabilities
        ends = np.where(is_end, np.arange(count)[:, None], count)
        self._ends = np.minimum.accumulate(ends[::-1], 0)[::-1]

    def __call__(self, weights: NDArray[Any]) -> NDArray[np.float64]:
        """Return the average precision of each class.

        Args:
            weights: How often each image counts (n,).

        Returns:
            Average precision (classes,), NaN for a class without images.
        """
        weighted = weights[self._order].astype(np.float64)
        positive = weighted * self._labels
        precision = positive.cumsum(0) / np.maximum(weighted.cumsum(0), 1e-12)
        sums, totals = (positive * np.take_along_axis(precision, self._ends, 0)).sum(0), positive.sum(0)
        found: NDArray[np.float64] = np.divide(sums, totals, out=np.full(len(totals), np.nan), where=totals > 0)
        return found


class MultiLabelTask(LabelTask[MultiLabel]):
    """Any number of classes for each image, scored by mean average precision."""

    losses: ClassVar[tuple[str, ...]] = ("bce", "focal")
    options: ClassVar[frozenset[str]] = frozenset(("class_weights",))
    calibrates: ClassVar[bool] = True
    trained_metric: ClassVar[str] = "label_accuracy"

    @staticmethod
    def fit(labels: NDArray[Any]) -> MultiLabel:  # noqa: D102
        return MultiLabel()

    @staticmethod
    def of_class(labels: NDArray[Any], index: int) -> NDArray[np.bool_]:  # noqa: D102
        return np.asarray(labels[:, index] > 0)

    def make_loss(self, config: ClassificationConfig, labels: Tensor, num_classes: int) -> Loss:  # noqa: D102
        positives = labels.sum(0).clamp(min=1)
        negatives = (len(labels) - positives).clamp(min=1)  # a label that every image has still counts
        weights = parse_class_weights(config.class_weights, num_classes, lambda: negatives / positives, labels.device)
        if config.loss == "focal":
            return partial(binary_focal_loss, weights=weights)
        return partial(binary_cross_entropy, weights=weights)

    def train_metric(self, logits: Tensor, targets: Tensor) -> float:
        """Return the sum over images of the fraction of classes that are decided rightly."""
        return float(((logits > 0) == (targets > 0.5)).float().mean(1).sum())

    def score(  # noqa: D102
        self, logits: Tensor, labels: Tensor, groups: NDArray[np.int64] | None = None
    ) -> Scores:
        loss = float(nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype)))
        probabilities = self.kind.activate(logits)
        decided = self.kind.decide(probabilities).numpy()
        return MultiLabelScores(
            NO_CONFUSION, loss, groups=groups,
            probabilities=probabilities.numpy(), labels=labels.numpy(), decided=decided,
        )  # fmt: skip

    def calibrate(self, logits: Tensor, labels: Tensor) -> MultiLabel:
        """Return the kind with the threshold of each class that has the highest F1 on validation images.

        The threshold lies between the least probability that counts as having the class and the next lower one. A class
        without such images has 0.5.
        """
        probabilities = self.kind.activate(logits).double().numpy()
        columns = zip(probabilities.T, labels.numpy().T, strict=True)
        return MultiLabel(tuple(best_threshold(found, true) for found, true in columns))

    def predict(self, image: str, predicted: Tensor, classes: Sequence[str], top: int) -> Prediction:  # noqa: D102
        ranking = rank_classes(predicted, classes, len(classes))
        decided = {classes[index] for index in self.kind.decide(predicted).nonzero().flatten().tolist()}
        labels = tuple((name, probability) for name, probability in ranking if name in decided)
        return Prediction(image, ranking[:top], labels=labels)

    def columns(self, predicted: Sequence[float], classes: Sequence[str]) -> dict[str, Any]:
        """Return the labels of an image, joined by |, and the highest of the probabilities."""
        decided = self.kind.decide(torch.tensor(predicted)).tolist()
        names = [name for name, is_decided in zip(classes, decided, strict=True) if is_decided]
        return {"label": "|".join(names), "probability": max(predicted)}


def best_threshold(probabilities: NDArray[np.float64], true: NDArray[np.floating]) -> float:
    """Return the threshold of a class with the highest F1.

    Args:
        probabilities: Probability of the class for each image (n,).
        true: 1 for images that have the class, else 0 (n,).

    Returns:
        The threshold; 0.5 where no image has the class.
    """
    if not true.any():
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    found, hits = probabilities[order], true[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(found) + 1) + true.sum())
    ends = np.append(found[1:] < found[:-1], True)  # equal probabilities are on one side
    best = int(np.argmax(np.where(ends, f1, -1.0)))
    lower = found[best + 1] if best + 1 < len(found) else 0.0
    return float((found[best] + lower) / 2)
