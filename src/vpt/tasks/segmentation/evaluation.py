"""Evaluation of segmentation models on pairs of images and masks."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vpt.data.image_files import capture_warnings
from vpt.data.mask_files import load_pair
from vpt.data.mask_labels import IGNORE_INDEX
from vpt.data.segmentation_folder import SegmentationDataset
from vpt.errors import DataError
from vpt.model.tuned_model import TunedModel
from vpt.tasks.segmentation.sliding_window import InferenceConfig, predict_rows
from vpt.training import Progress
from vpt.training.evaluation import Scores, confusion_matrix, divide_or_nan


class PixelScores(Scores):
    """Scores of a confusion matrix of pixels. A class that neither occurs nor is predicted has the IoU NaN."""

    @property
    def per_class(self) -> NDArray[np.float64]:
        """Intersection over union of each class."""
        hits = self.confusion.diagonal()
        return divide_or_nan(hits, self.confusion.sum(0) + self.confusion.sum(1) - hits)

    @property
    def metrics(self) -> dict[str, float]:
        """Mean IoU over the classes that have one, and the fraction of correct pixels."""
        return {"miou": self.mean_per_class, "pixel_accuracy": self.accuracy}


def score_split(
    model: TunedModel,
    dataset: SegmentationDataset,
    split: str,
    inference: InferenceConfig,
    on_image: Progress | None = None,
) -> PixelScores:
    """Score a model on the pairs of images and masks of a split, at their original size.

    Args:
        model: The model.
        dataset: The dataset.
        split: Name of the split.
        inference: Scales and flips that are averaged.
        on_image: Function that receives the number of scored pairs and of all pairs. Default: none.

    Returns:
        The scores; their loss is the mean loss of the averaged probabilities.

    Raises:
        DataError: The dataset has other classes than the model, or no such split.
    """
    if split not in dataset.splits:
        raise DataError(f"{dataset.name} has no {split} images; it has {', '.join(dataset.splits)}")
    if model.num_classes != len(dataset.classes) or (model.classes or dataset.classes) != dataset.classes:
        raise DataError(
            f"{dataset.name} has the classes {', '.join(dataset.classes[:10])}, the model "
            f"{', '.join((model.classes or ())[:10])}; read the masks as the model was taught, see --labels"
        )
    pairs, total, losses = (
        dataset.splits[split],
        torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64),
        0.0,
    )
    with capture_warnings():
        for index in range(len(pairs)):
            pixels, mask = load_pair(pairs, index, dataset.lookup_table)
            loss, targets = 0.0, torch.from_numpy(mask).long()
            for rows, probabilities in predict_rows(model, torch.from_numpy(pixels), inference):
                predicted, target = probabilities.cpu(), targets[rows]
                total += confusion_matrix(predicted.argmax(0), target, model.num_classes)
                log_probs = predicted.clamp(min=1e-12).log()
                loss += F.cross_entropy(
                    log_probs[None], target[None], ignore_index=IGNORE_INDEX, reduction="sum"
                ).item()
            losses += loss / max(1, int((targets != IGNORE_INDEX).sum()))
            if on_image is not None:
                on_image(index + 1, len(pairs))
    return PixelScores(total.numpy(), losses / max(1, len(pairs)))
