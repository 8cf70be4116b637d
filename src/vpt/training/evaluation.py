"""Evaluation: logits of a dataset, and the scores computed from them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vpt.training.batches import DeviceDataset, iter_batches
from vpt.training.callbacks import Progress


@dataclass(frozen=True)
class Scores:
    """Scores of a confusion matrix, of classification; those of other tasks are subclasses.

    Attributes:
        confusion: Counts (true, predicted), int64 (classes, classes).
        loss: Mean loss.
    """

    confusion: NDArray[np.int64]
    loss: float

    @property
    def per_class(self) -> NDArray[np.float64]:
        """Recall of each class, between 0 and 1; NaN for a class without images."""
        return divide_or_nan(self.confusion.diagonal(), self.confusion.sum(1))

    @property
    def accuracy(self) -> float:
        """Fraction of correct predictions, between 0 and 1."""
        return float(self.confusion.trace() / max(1, self.confusion.sum()))

    @property
    def mean_per_class(self) -> float:
        """Mean of `per_class` over the classes that have a score."""
        return float(np.nanmean(self.per_class)) if self.confusion.any() else float("nan")

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by name, the main one first."""
        return {"top1": self.accuracy, "mean_per_class": self.mean_per_class}


def divide_or_nan(counts: NDArray[np.int64], totals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return counts as fractions of totals.

    Args:
        counts: Counts (n,).
        totals: Totals (n,).

    Returns:
        Fractions (n,), NaN where the total is 0.
    """
    fractions: NDArray[np.float64] = np.divide(counts, totals, out=np.full(len(counts), np.nan), where=totals > 0)
    return fractions


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count predictions by true and predicted class.

    Labels that are no class, such as that of ignored pixels, are left out.

    Args:
        predicted: Predicted classes, of any shape.
        labels: True classes, of the same shape.
        classes: Number of classes.

    Returns:
        Counts (true, predicted), int64 (classes, classes).
    """
    known = (labels >= 0) & (labels < classes)
    pairs = labels[known].long() * classes + predicted[known].long()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


@torch.inference_mode()
def predict_logits(
    model: Callable[[Tensor], Tensor],
    dataset: DeviceDataset,
    *,
    batch_size: int = 64,
    bf16: bool = False,
    augment: str = "none",
    rng: np.random.Generator | None = None,
    on_batch: Progress | None = None,
) -> Tensor:
    """Compute the logits of a dataset, in eval mode.

    Args:
        model: Module or function that maps the inputs of the dataset to logits.
        dataset: The dataset.
        batch_size: Images per forward pass. Default: 64.
        bf16: True runs the forward pass in bf16. Default: False.
        augment: Name of an augmentation. Default: none.
        rng: Random generator of the augmentation. Default: none.
        on_batch: Function that receives the number of finished images and of all images. Default: none.

    Returns:
        Logits (n, classes), float32 on the CPU.
    """
    if isinstance(model, nn.Module):
        model.eval()
    outputs, done = [], 0
    for indices in iter_batches(np.arange(len(dataset)), batch_size):
        with torch.autocast(dataset.device.type, torch.bfloat16, enabled=bf16):
            outputs.append(model(dataset.inputs(indices, augment, rng)).float().cpu())
        done += len(indices)
        if on_batch is not None:
            on_batch(done, len(dataset))
    return torch.cat(outputs)


def score_logits(logits: Tensor, labels: Tensor) -> Scores:
    """Compute scores from logits. Ties go to the lower class.

    Args:
        logits: Logits (n, classes).
        labels: Labels (n,).

    Returns:
        The scores.
    """
    confusion = confusion_matrix(logits.argmax(1), labels, logits.shape[1])
    return Scores(confusion.numpy(), float(nn.functional.cross_entropy(logits, labels)))
