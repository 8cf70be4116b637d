"""Evaluation of segmentation models on pairs of images and masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vpt.data.image_files import capture_warnings
from vpt.data.mask_files import load_pair
from vpt.data.mask_labels import IGNORE_INDEX
from vpt.data.segmentation_layouts import ImageMaskPairs
from vpt.model.tuned_model import TunedModel
from vpt.tasks.segmentation.scores import PixelScores, confusion_matrix
from vpt.tasks.segmentation.sliding_window import InferenceConfig, predict_rows


def score_pairs(
    model: TunedModel,
    pairs: ImageMaskPairs,
    lookup_table: NDArray[np.int16],
    inference: InferenceConfig,
    on_image: Callable[[int, int], None] | None = None,
) -> tuple[float, PixelScores]:
    """Score a model on pairs of images and masks, at their original size.

    Args:
        model: The model.
        pairs: The pairs.
        lookup_table: Mask id -> class.
        inference: Scales and flips that are averaged.
        on_image: Function that receives the number of scored pairs and of all pairs. Default: none.

    Returns:
        The mean loss of the averaged probabilities, and the scores.
    """
    total, losses = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64), 0.0
    with capture_warnings():
        for index in range(len(pairs)):
            pixels, mask = load_pair(pairs, index, lookup_table)
            loss, targets = 0.0, torch.from_numpy(mask).long()
            for rows, probabilities in predict_rows(model, torch.from_numpy(pixels), inference):
                predicted, target = probabilities.cpu(), targets[rows]
                total += confusion_matrix(predicted.argmax(0), target, model.num_classes)
                log_probs = predicted.clamp(min=1e-12).log()
                loss += float(
                    F.cross_entropy(log_probs[None], target[None], ignore_index=IGNORE_INDEX, reduction="sum")
                )
            losses += loss / max(1, int((targets != IGNORE_INDEX).sum()))
            if on_image is not None:
                on_image(index + 1, len(pairs))
    return losses / max(1, len(pairs)), PixelScores(total.numpy())
