"""One class for each image."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vpt.core.prediction import Prediction
from vpt.model.label_kinds import SingleLabel
from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.classification.labels.base import LabelTask, rank_classes
from vpt.tasks.classification.losses import (
    Loss,
    balanced_weights,
    cross_entropy,
    parse_class_weights,
    softmax_focal_loss,
)
from vpt.training.evaluation import Scores, score_logits
from vpt.training.temperature import fit_temperature


class SingleLabelTask(LabelTask[SingleLabel]):
    """One class for each image, scored by top-1 accuracy."""

    losses: ClassVar[tuple[str, ...]] = ("ce", "focal")
    options: ClassVar[frozenset[str]] = frozenset(("class_weights", "label_smoothing", "balanced_sampling"))
    trained_metric: ClassVar[str] = "top1"

    @staticmethod
    def fit(labels: NDArray[Any]) -> SingleLabel:  # noqa: D102
        return SingleLabel()

    @staticmethod
    def of_class(labels: NDArray[Any], index: int) -> NDArray[np.bool_]:  # noqa: D102
        return np.asarray(labels == index)

    def make_loss(self, config: ClassificationConfig, labels: Tensor, num_classes: int) -> Loss:  # noqa: D102
        weights = parse_class_weights(
            config.class_weights,
            num_classes,
            lambda: balanced_weights(labels.bincount(minlength=num_classes)),
            labels.device,
        )
        if config.loss == "focal":
            return partial(softmax_focal_loss, weights=weights)
        return partial(cross_entropy, weights=weights, label_smoothing=config.label_smoothing)

    def train_metric(self, logits: Tensor, targets: Tensor) -> float:  # noqa: D102
        return int((logits.argmax(1) == targets).sum())

    def score(  # noqa: D102
        self, logits: Tensor, labels: Tensor, groups: NDArray[np.int64] | None = None
    ) -> Scores:
        return score_logits(self.kind.scale(logits), labels, groups)

    def calibrate(self, logits: Tensor, labels: Tensor) -> SingleLabel:
        """Return the kind with the temperature of the lowest loss on validation images, or 1 where there is none."""
        temperature = fit_temperature(logits, labels)
        return SingleLabel() if temperature is None else SingleLabel(temperature)

    def predict(self, image: str, predicted: Tensor, classes: Sequence[str], top: int) -> Prediction:  # noqa: D102
        return Prediction(image, rank_classes(predicted, classes, top))
