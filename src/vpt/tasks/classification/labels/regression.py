"""A number for each image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vpt.core.prediction import Prediction
from vpt.errors import DataError
from vpt.model.label_kinds import Regression
from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.classification.labels.base import LabelTask
from vpt.tasks.classification.losses import Loss, absolute_error, squared_error
from vpt.training.bootstrap import bootstrap, percentile_interval
from vpt.training.evaluation import NO_CONFUSION, Scores


@dataclass(frozen=True, kw_only=True)
class RegressionScores(Scores):
    """Scores of predicted numbers.

    Attributes:
        picture: Name of the picture of these scores.
        predicted: Predicted numbers (n,).
        labels: True numbers (n,).
    """

    picture: ClassVar[str] = "scatter"

    predicted: NDArray[np.float64]
    labels: NDArray[np.float64]

    @property
    def per_class(self) -> NDArray[np.float64]:
        """Nothing, as numbers have no classes."""
        return np.zeros(0)

    @property
    def numbers(self) -> NDArray[np.float64]:
        """True and predicted number of each image (n, 2)."""
        return np.stack([self.labels, self.predicted], axis=1)

    @property
    def num_images(self) -> int:
        """Number of scored images."""
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """The main metric, the coefficient of determination."""
        return self.r2

    @property
    def r2(self) -> float:
        """Coefficient of determination, at most 1; for equal labels 1 or 0, as scikit-learn defines it."""
        errors, deviations = self.labels - self.predicted, self.labels - self.labels.mean()
        squares = float(deviations @ deviations)
        return 1 - float(errors @ errors) / squares if squares else float(not errors.any())

    @property
    def mean_absolute_error(self) -> float:
        """Mean absolute error, in the unit of the labels."""
        return float(np.abs(self.labels - self.predicted).mean())

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by name, the main one first."""
        return {"r2": self.r2, "mae": self.mean_absolute_error}

    @property
    def macro(self) -> dict[str, float]:
        """Nothing, as numbers have no classes."""
        return {}

    def intervals(self, groups: NDArray[np.int64] | None = None) -> dict[str, tuple[float, float]]:
        """Return the 95 % intervals of the metrics, by the bootstrap over images.

        Args:
            groups: Group of each image (n,); images of a group are drawn together. Default: those of the scores.

        Returns:
            Lower and upper bound by name of the metric.
        """
        groups = self.groups if groups is None else groups

        def statistic(weights: NDArray[np.int64]) -> tuple[float, float]:
            drawn = np.repeat(np.arange(len(weights)), weights)
            resampled = replace(self, labels=self.labels[drawn], predicted=self.predicted[drawn])
            r2 = resampled.r2 if np.ptp(resampled.labels) else float("nan")  # which equal numbers do not have
            return r2, resampled.mean_absolute_error

        values = bootstrap(np.arange(len(self.labels)), statistic, groups=groups)
        if np.isnan(values[:, 0]).all():
            values[:, 0] = self.r2
        return {name: percentile_interval(column) for name, column in zip(("r2", "mae"), values.T, strict=True)}


class RegressionTask(LabelTask[Regression]):
    """A number for each image, scored by the coefficient of determination and the mean absolute error."""

    losses: ClassVar[tuple[str, ...]] = ("l1", "mse")  # L1 bears any rate, as cross-entropy does
    trained_metric: ClassVar[str] = "r2"

    @staticmethod
    def fit(labels: NDArray[Any]) -> Regression:  # noqa: D102
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = float(labels.mean()), float(labels.std())
        if not np.isfinite(std):
            raise DataError(
                f"labels from {labels.min():g} to {labels.max():g} are too far apart to be learned; "
                "give them in another unit"
            )
        return Regression(mean, std or 1.0)

    @staticmethod
    def of_class(labels: NDArray[Any], index: int) -> NDArray[np.bool_]:  # noqa: D102
        return np.ones(len(labels), bool)

    def make_loss(self, config: ClassificationConfig, labels: Tensor, num_classes: int) -> Loss:  # noqa: D102
        return squared_error if config.loss == "mse" else absolute_error

    def targets(self, labels: Tensor) -> Tensor:  # noqa: D102
        return self.kind.standardize(labels)

    def train_metric(self, logits: Tensor, targets: Tensor) -> float:
        """Return the sum over images of 1 - the squared error of standardized numbers, whose mean is R²."""
        return float((1 - (logits.detach().squeeze(1).float() - targets) ** 2).sum())

    def score(  # noqa: D102
        self, logits: Tensor, labels: Tensor, groups: NDArray[np.int64] | None = None
    ) -> Scores:
        outputs = logits.squeeze(1).double()
        loss = float((outputs - self.kind.standardize(labels)).abs().mean())
        predicted = self.kind.activate(outputs).numpy()
        return RegressionScores(NO_CONFUSION, loss, groups=groups, predicted=predicted, labels=labels.double().numpy())

    def predict(self, image: str, predicted: Tensor, classes: Sequence[str], top: int) -> Prediction:  # noqa: D102
        return Prediction(image, (), value=float(predicted.squeeze(-1)))

    def columns(self, predicted: Sequence[float], classes: Sequence[str]) -> dict[str, Any]:
        """Return the number of an image."""
        return {"prediction": predicted[0]}  # no "label", so that no folder is read by such a table
