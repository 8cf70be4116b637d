"""Scores of segmentation, all computed from one confusion matrix of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpt.data.mask_labels import IGNORE_INDEX


def confusion_matrix(predicted: Tensor, mask: Tensor, classes: int) -> Tensor:
    """Count pixels by true and predicted class. Pixels of IGNORE_INDEX are left out.

    Args:
        predicted: Predicted classes, of any shape.
        mask: True classes, of the same shape.
        classes: Number of classes.

    Returns:
        Counts (true, predicted), int64 (classes, classes).
    """
    valid = mask != IGNORE_INDEX
    pairs = mask[valid].long() * classes + predicted[valid].long()
    return torch.bincount(pairs.flatten(), minlength=classes * classes).view(classes, classes)


@dataclass(frozen=True)
class PixelScores:
    """Scores of a confusion matrix. A class that neither occurs nor is predicted has the IoU NaN.

    Attributes:
        confusion: Counts of pixels (true, predicted), int64 (classes, classes).
    """

    confusion: NDArray[np.int64]

    @property
    def per_class(self) -> NDArray[np.float64]:
        """Intersection over union of each class."""
        hits = self.confusion.diagonal()
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        iou: NDArray[np.float64] = np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
        return iou

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that have one."""
        return float(np.nanmean(self.per_class)) if self.confusion.any() else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of correct pixels."""
        return float(self.confusion.trace() / max(1, self.confusion.sum()))
