"""Requests for predictions, and the predictions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vpt.serving.tuned_files import TunedFile


@dataclass(frozen=True)
class PredictionRequest:
    """An image for a task, prepared by `Bank.make_request`.

    Args:
        task: Name of the task.
        pixels: uint8 (3, size, size), the input size of the backbone. For segmentation (3, height, width), the original
            size.
        file: The file of the task.
    """

    task: str
    pixels: Tensor
    file: TunedFile


@dataclass(frozen=True)
class ClassPrediction:
    """The class, the labels or the number of an image.

    Args:
        task: Name of the task.
        top: (class, probability) of all classes, most likely first; empty where a number is predicted.
        labels: (class, probability) of the classes that the image has, where it may have several; else None.
        value: The predicted number; None where classes are predicted.
        rejected: True if the first class is less likely than was asked for: the label is "none of these".
    """

    task: str
    top: tuple[tuple[str, float], ...]
    labels: tuple[tuple[str, float], ...] | None = None
    value: float | None = None
    rejected: bool = False


@dataclass(frozen=True, eq=False)
class MaskPrediction:
    """The segmentation of an image.

    Args:
        task: Name of the task.
        top: (class, fraction of the image) of the classes in the mask, largest first.
        mask: Class of each pixel, (height, width).
    """

    task: str
    top: tuple[tuple[str, float], ...]
    mask: NDArray[np.uint16]


Prediction = ClassPrediction | MaskPrediction
