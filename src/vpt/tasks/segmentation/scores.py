"""Figures of segmentation, all read from one confusion matrix of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpt.data.mask_labels import IGNORE_INDEX


def confusion_matrix(predicted: Tensor, mask: Tensor, classes: int) -> Tensor:
    """Counts of pixels (true, predicted), int64 (classes, classes), of any two tensors of one shape; IGNORE_INDEX left out."""
    valid = mask != IGNORE_INDEX
    pairs = mask[valid].long() * classes + predicted[valid].long()
    return torch.bincount(pairs.flatten(), minlength=classes * classes).view(classes, classes)


@dataclass(frozen=True)
class PixelScores:
    """confusion: counts of pixels (true, predicted). A class neither there nor predicted has no IoU (NaN)."""

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
        """Share of pixels that are right."""
        return float(self.confusion.trace() / max(1, self.confusion.sum()))
