"""Evaluation: logits over a set, and the figures read from them."""

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
    """Figures of one set, all between 0 and 1 but the loss.

    per_class: recall of each class, NaN where the set has no image of it. confusion: counts, (true, predicted).
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
    """Logits (n, classes) on the CPU in float32, of images varied by `augment`, if any. `on_batch` hears (done, n)."""
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
    """logits (n, classes), labels (n,) -> figures. Ties go to the lower class, as argmax has it."""
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
