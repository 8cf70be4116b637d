"""The scores of a model by the names of its classes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.tasks.pictures import Picture
from vpt.training import Scores

OUT_OF_FOLD = "out_of_fold"  # name of the images that are scored by models that did not train on them


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on one split.

    Attributes:
        split: Name of the split.
        images: Number of images.
        metrics: Metrics by name, the main one first, between 0 and 1; "mae" in the unit of the labels.
        per_class: Recall, average precision or IoU by class name; None for a class that does not occur.
        confusion: Counts (true, predicted) of images or pixels, (classes, classes), or (0, 0) without single labels.
        loss: Mean loss, or None where it is not computed.
        scores: The scores by number of the class, or None where only their values are known.
        rejection: What a threshold of the confidence accepts, of these images and of foreign ones; None without one.
        notes: What readers of the scores should know, one sentence each.
        pictures: Function that returns pictures of predictions, such as mistakes. It computes them when it is called,
            and returns none where `vpt.evaluate` was not asked for them.
    """

    split: str
    images: int
    metrics: dict[str, float]
    per_class: dict[str, float | None]
    confusion: NDArray[np.int64]
    loss: float | None = None
    scores: Scores | None = field(default=None, repr=False, compare=False)
    rejection: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    pictures: Callable[[], list[Picture]] = field(default_factory=lambda: list, repr=False, compare=False)

    @property
    def class_rates(self) -> dict[str, dict[str, float | None]]:
        """Precision, recall and F1 by class name, between 0 and 1, as scikit-learn defines them.

        A rate without any case is 0. A class that neither occurs nor is predicted has None.
        """
        if self.scores is None:
            return {}
        rates = {rate: values.tolist() for rate, values in self.scores.class_rates.items()}
        return {
            name: {rate: None if math.isnan(values[k]) else values[k] for rate, values in rates.items()}
            for k, name in enumerate(self.per_class)
        }

    @property
    def macro(self) -> dict[str, float]:
        """Mean precision, recall and F1 of the classes that occur or are predicted."""
        return {} if self.scores is None else self.scores.macro

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error in 15 bins of equal width, or None where probabilities are not known."""
        return None if self.scores is None else self.scores.calibration_error

    @property
    def groups(self) -> int | None:
        """Number of groups of images that intervals are over, or None if every image is on its own."""
        groups = None if self.scores is None else self.scores.groups
        return None if groups is None else len(np.unique(groups))

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % intervals of the main metric and of macro F1.

        That of top-1 is Wilson's, where images have no groups; others are of the bootstrap over images or over groups.
        """
        return {} if self.scores is None else self.scores.intervals()

    def confusion_table(self, unit: str = "counts") -> list[list[float]]:
        """Return the confusion matrix as JSON values.

        Args:
            unit: "counts", or "percent" of the images or pixels of each true class. Default: "counts".

        Returns:
            One row for each true class, one column for each predicted class. A class that does not occur has zeros.
        """
        if unit == "counts":
            return self.confusion.tolist()  # type: ignore[no-any-return]
        totals = np.maximum(1, self.confusion.sum(1, keepdims=True))
        return (100 * self.confusion / totals).tolist()  # type: ignore[no-any-return]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the confusion matrix as JSON values."""
        loss = {} if self.loss is None else {"loss": self.loss}
        return {
            "split": self.split,
            "images": self.images,
            **self.metrics,
            **loss,
            "per_class": self.per_class,
            "class_rates": self.class_rates,
            "macro": self.macro,
            "calibration_error": self.calibration_error,
            "intervals": {name: list(bounds) for name, bounds in self.intervals.items()},
            **({} if self.rejection is None else {"rejection": self.rejection}),
            "notes": list(self.notes),
        }


def make_evaluation(split: str, images: int, scores: Scores, classes: Sequence[str]) -> Evaluation:
    """Return scores by name: None (not NaN, which JSON lacks) for a class that does not occur.

    Args:
        split: Name of the split.
        images: Number of images.
        scores: The scores.
        classes: Names of the classes.

    Returns:
        The evaluation.
    """
    values = [None if math.isnan(value) else float(value) for value in scores.per_class]
    per_class = dict(zip(classes, values, strict=True)) if values else {}  # numbers have no classes
    return Evaluation(split, images, scores.metrics, per_class, scores.confusion, scores.loss, scores)
