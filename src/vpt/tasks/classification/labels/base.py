"""The protocol of a kind of labels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vpt.core.prediction import Prediction
from vpt.errors import SpecError
from vpt.model.label_kinds import LabelKind
from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.classification.losses import Loss
from vpt.tasks.classification.metrics import choose_metric
from vpt.training.evaluation import Scores

Kind = TypeVar("Kind", bound=LabelKind)


class LabelTask(ABC, Generic[Kind]):
    """Learning, scoring and prediction of labels of one kind.

    Attributes:
        losses: Names of the losses, the default first.
        options: Options of the configuration that this kind has, besides the loss.
        calibrates: True if something is always chosen on validation images after training.
        trained_metric: Key of the metric that `train_metric` sums.
        kind: The kind, as a tuned file records it.
    """

    losses: ClassVar[tuple[str, ...]]
    options: ClassVar[frozenset[str]] = frozenset()
    calibrates: ClassVar[bool] = False
    trained_metric: ClassVar[str]

    def __init__(self, kind: Kind) -> None:
        """Make the task of a kind.

        Args:
            kind: The kind.
        """
        self.kind: Kind = kind

    @staticmethod
    @abstractmethod
    def fit(labels: NDArray[Any]) -> LabelKind:
        """Return the kind of training labels.

        Args:
            labels: The labels.

        Returns:
            The kind.
        """

    @staticmethod
    @abstractmethod
    def of_class(labels: NDArray[Any], index: int) -> NDArray[np.bool_]:
        """Return which images show a class.

        Args:
            labels: Labels of images.
            index: Index of the class.

        Returns:
            True for each image of it (n,).
        """

    def check(self, config: ClassificationConfig) -> None:
        """Check the options of the loss, and the metric.

        Args:
            config: The configuration.

        Raises:
            SpecError: This kind of labels has no such loss, metric or option.
        """
        choose_metric(self.kind.name, config.metric)
        if config.loss not in ("auto", *self.losses):
            raise SpecError(
                f"loss is {config.loss!r}, and the labels are {self.kind.name}, for which the losses are "
                f"{', '.join(self.losses)}"
            )
        given = {
            "class_weights": config.class_weights is not None,
            "label_smoothing": config.label_smoothing > 0,
            "balanced_sampling": config.balanced_sampling,
        }
        for name, is_given in given.items():
            if is_given and name not in self.options:
                raise SpecError(f"{name} is {getattr(config, name)}, and the labels are {self.kind.name}; leave it out")

    @abstractmethod
    def make_loss(self, config: ClassificationConfig, labels: Tensor, num_classes: int) -> Loss:
        """Return the loss.

        Args:
            config: The configuration.
            labels: Labels of all training images.
            num_classes: Number of classes.

        Returns:
            Function from logits (batch, classes) and targets to the sum of the losses of the images.
        """

    def targets(self, labels: Tensor) -> Tensor:
        """Return labels as the model learns them.

        Args:
            labels: Labels (batch, ...).

        Returns:
            The targets of the loss.
        """
        return labels

    @abstractmethod
    def train_metric(self, logits: Tensor, targets: Tensor) -> float:
        """Return the sum over images of the metric of a training batch.

        Args:
            logits: Logits (batch, classes).
            targets: Targets of the loss.

        Returns:
            The sum, at most the number of images.
        """

    @abstractmethod
    def score(self, logits: Tensor, labels: Tensor, groups: NDArray[np.int64] | None = None) -> Scores:
        """Return the scores of predictions.

        Args:
            logits: Logits (n, classes).
            labels: Labels (n, ...).
            groups: Group of each image (n,). Default: every image is on its own.

        Returns:
            The scores.
        """

    def calibrate(self, logits: Tensor, labels: Tensor) -> LabelKind:
        """Return the kind with what is chosen on validation images.

        Args:
            logits: Logits of validation images (n, classes).
            labels: Their labels.

        Returns:
            The kind.
        """
        return self.kind

    @abstractmethod
    def predict(self, image: str, predicted: Tensor, classes: Sequence[str], top: int) -> Prediction:
        """Return the prediction of an image.

        Args:
            image: Name of the image.
            predicted: Probabilities or numbers of the image (classes,).
            classes: Names of the classes.
            top: Number of classes to name.

        Returns:
            The prediction.
        """

    def columns(self, predicted: Sequence[float], classes: Sequence[str]) -> dict[str, Any]:
        """Return the prediction for an image as columns of a table.

        Args:
            predicted: Probability of each class, or the number.
            classes: Names of the classes.

        Returns:
            The most likely class and its probability.
        """
        best = max(range(len(predicted)), key=predicted.__getitem__)
        return {"label": classes[best], "probability": predicted[best]}


def rank_classes(probabilities: Tensor, classes: Sequence[str], top: int) -> tuple[tuple[str, float], ...]:
    """Return the most likely classes of an image.

    Args:
        probabilities: Probabilities (classes,).
        classes: Names of the classes.
        top: Number of classes.

    Returns:
        Names and probabilities, most likely first.
    """
    best = probabilities.topk(min(top, len(classes)))
    return tuple((classes[i], float(p)) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True))
