"""Losses of images with labels. Each returns the sum over images, so that micro-batches add up to a batch."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss  # type: ignore[import-untyped]

from vpt.errors import SpecError
from vpt.tasks.classification.config import read_class_weights

Loss = Callable[[Tensor, Tensor], Tensor]

FOCAL_GAMMA = 2.0  # of Lin et al., 2017
FOCAL_ALPHA = 0.25


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the cross-entropy of single labels, as torch defines it.

    Args:
        logits: Logits (batch, classes).
        labels: Classes, int64 (batch,).
        weights: Weight of each class. Default: 1.
        label_smoothing: Fraction of the target that is spread over all classes. Default: 0.

    Returns:
        The sum over images, a scalar.
    """
    return F.cross_entropy(logits, labels, weights, reduction="sum", label_smoothing=label_smoothing)


def softmax_focal_loss(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, gamma: float = FOCAL_GAMMA
) -> Tensor:
    """Return the focal loss of single labels: (1 - p)^gamma times the cross-entropy, p the true class's probability.

    This is the loss of Lin et al. (Focal Loss for Dense Object Detection, ICCV 2017, equation 5), with the softmax in
    place of the sigmoid; class weights take the place of alpha.

    Args:
        logits: Logits (batch, classes).
        labels: Classes, int64 (batch,).
        weights: Weight of each class. Default: 1.
        gamma: Exponent. Default: 2.

    Returns:
        The sum over images, a scalar.
    """
    log_p = logits.log_softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
    losses = -((1 - log_p.exp()) ** gamma) * log_p
    return (losses if weights is None else losses * weights[labels]).sum()


def binary_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean over classes of the binary cross-entropy of several labels.

    Args:
        logits: Logits (batch, classes).
        labels: 0 or 1, float (batch, classes).
        weights: Weight of the images that have a class, for each class. Default: 1.

    Returns:
        The sum over images, a scalar.
    """
    losses = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="none")
    return losses.mean(1).sum()


def binary_focal_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean over classes of torchvision's focal loss of several labels (alpha 0.25, gamma 2).

    Args:
        logits: Logits (batch, classes).
        labels: 0 or 1, float (batch, classes).
        weights: Weight of the images that have a class, for each class. Default: 1.

    Returns:
        The sum over images, a scalar.
    """
    losses: Tensor = sigmoid_focal_loss(logits, labels, FOCAL_ALPHA, FOCAL_GAMMA)
    return (losses if weights is None else losses * weights.where(labels > 0, 1)).mean(1).sum()


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the squared error of numbers.

    Args:
        outputs: Outputs (batch, 1).
        targets: Standardized numbers (batch,).

    Returns:
        The sum over images, a scalar.
    """
    return F.mse_loss(outputs.squeeze(1), targets, reduction="sum")


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the absolute error of numbers.

    Args:
        outputs: Outputs (batch, 1).
        targets: Standardized numbers (batch,).

    Returns:
        The sum over images, a scalar.
    """
    return F.l1_loss(outputs.squeeze(1), targets, reduction="sum")


def parse_class_weights(
    text: str | None, num_classes: int, balanced: Callable[[], Tensor], device: torch.device
) -> Tensor | None:
    """Return the weights of classes.

    Args:
        text: "balanced", a number for each class, with commas, or None.
        num_classes: Number of classes.
        balanced: Function that returns balanced weights.
        device: Device of the weights.

    Returns:
        Weights, float32 (classes,), or None.

    Raises:
        SpecError: The text holds other values, or not one for each class.
    """
    if text is None:
        return None
    if text == "balanced":
        return balanced().float().to(device)
    numbers = read_class_weights(text)
    if len(numbers) != num_classes:
        raise SpecError(f"class_weights is {text!r}, {len(numbers)} numbers, and there are {num_classes} classes")
    return torch.tensor(numbers, device=device)


def balanced_weights(counts: Tensor) -> Tensor:
    """Return class weights as scikit-learn's "balanced": images / (classes * images of the class).

    Args:
        counts: Number of images of each class.

    Returns:
        Weights, float32 (classes,); 0 for a class without images.
    """
    counts = counts.double()
    present = counts > 0
    return torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0.0).float()
