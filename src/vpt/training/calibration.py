"""Calibration: do predictions with a confidence of 80 % hold in 80 % of all cases?"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUM_BINS = 15


def confidence_bins(confidences: Tensor, correct: Tensor) -> NDArray[np.float64]:
    """Sum predictions by confidence, in 15 bins of equal width.

    A bin includes its lower bound, and the last one also its upper bound 1.

    Args:
        confidences: Probability of the predicted class (n,).
        correct: True where the prediction is right (n,).

    Returns:
        Number of predictions, sum of their confidences, and number of right ones, float64 (15, 3).
    """
    confidences = confidences.double()
    index = (confidences * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    columns = (torch.ones_like(confidences), confidences, correct.double())
    return torch.stack([torch.bincount(index, values, NUM_BINS) for values in columns], 1).numpy()


def calibration_error(bins: NDArray[np.float64]) -> float:
    """Return the expected calibration error (Guo et al., 2017).

    Args:
        bins: Sums of `confidence_bins`.

    Returns:
        Mean distance of confidence and accuracy of the bins, weighted by their predictions, between 0 and 1.
    """
    count, confidence, correct = bins.T
    return float(np.abs(correct - confidence).sum() / max(1.0, count.sum()))
