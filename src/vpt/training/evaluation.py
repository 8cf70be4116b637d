"""Evaluation: logits of a dataset, and the scores computed from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vpt.training.batches import DeviceDataset, iter_batches


@dataclass(frozen=True)
class Scores:
    """Scores of classification on one dataset.

    Attributes:
        loss: Mean cross-entropy.
        top1: Top-1 accuracy, between 0 and 1.
        per_class: Recall of each class, between 0 and 1; NaN for a class without images.
        confusion: Counts (true, predicted), (classes, classes).
    """

    loss: float
    top1: float
    per_class: NDArray[np.float64]
    confusion: NDArray[np.int64]

    @property
    def mean_per_class(self) -> float:
        """Mean recall over the classes that occur."""
        return float(np.nanmean(self.per_class))


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    dataset: DeviceDataset,
    *,
    batch_size: int = 64,
    bf16: bool = False,
    augment: str = "none",
    rng: np.random.Generator | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Compute the logits of a dataset, in eval mode.

    Args:
        model: Module that maps the inputs of the dataset to logits.
        dataset: The dataset.
        batch_size: Images per forward pass. Default: 64.
        bf16: True runs the forward pass in bf16. Default: False.
        augment: Name of an augmentation. Default: none.
        rng: Random generator of the augmentation. Default: none.
        on_batch: Function that receives the number of finished images and of all images. Default: none.

    Returns:
        Logits (n, classes), float32 on the CPU.
    """
    model.eval()
    outputs = []
    done = 0
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
    classes = logits.shape[1]
    predicted = logits.argmax(1)
    confusion = torch.bincount(labels * classes + predicted, minlength=classes * classes).view(classes, classes).numpy()
    seen = confusion.sum(1)
    per_class = np.divide(confusion.diagonal(), seen, out=np.full(classes, np.nan), where=seen > 0)
    return Scores(
        loss=float(nn.functional.cross_entropy(logits, labels)),
        top1=float(confusion.trace() / confusion.sum()),
        per_class=per_class,
        confusion=confusion,
    )
