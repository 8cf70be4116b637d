"""The record of one training epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of one training epoch, or of one evaluation interval of a segmentation model.

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: Mean training loss per image.
        train_metric: Top-1 accuracy in training, between 0 and 1; pixel accuracy for segmentation.
        val_loss: Mean validation loss, or None without validation images.
        val_metric: Top-1 accuracy on validation images, between 0 and 1; mean IoU for segmentation; None without them.
        lr: Learning rate of the last step.
        seconds: Wall time of the epoch, validation included.
    """

    epoch: int
    train_loss: float
    train_metric: float
    val_loss: float | None
    val_metric: float | None
    lr: float
    seconds: float
