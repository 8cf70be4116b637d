"""Occlusion: which parts of an image the most likely class depends on, for a model on any backbone."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from vpt.analysis.model_input import most_likely, read_input
from vpt.attention.detection import structural_copy
from vpt.data.images.inputs import ImageInput
from vpt.model.tuned_model import TunedModel

CELLS = 12  # along a side; a square covers 2 x 2 of them
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Occlusion:
    """Drops of the probability of the most likely class where squares of the image are covered.

    Args:
        image: uint8 (size, size, 3), the input of the backbone.
        prediction: The most likely class and its probability.
        square: Side of the covered squares in pixels.
        drops: (cells, cells), drop of the probability, averaged over the squares that cover the cell. It is negative
            where the class becomes more probable.
    """

    image: NDArray[np.uint8]
    prediction: tuple[str, float]
    square: int
    drops: NDArray[np.float64]


@torch.no_grad()
def occlude(model: TunedModel, image: ImageInput) -> Occlusion:
    """Cover squares of an image one by one, and measure the probability of its most likely class (Zeiler, 2014).

    A square has the mean color of the preprocessing. Squares overlap by half. The model is not changed.

    Args:
        model: The tuned model. A model that segments or predicts a number raises UnsupportedError.
        image: An image in any form that `vpt.data.images.inputs.read_image` takes; one that cannot be read raises
            DataError.

    Returns:
        The drops of the probability.
    """
    pixels, inputs = read_input(model, image)
    network = structural_copy(model, num_classes=None)
    best, name, probability = most_likely(model, network(inputs)[0])
    edges = np.linspace(0, len(pixels), CELLS + 1).round().astype(int)
    corners = list(product(range(CELLS - 1), repeat=2))
    probabilities: list[float] = []
    for start in range(0, len(corners), _BATCH):
        part = corners[start : start + _BATCH]
        covered = inputs.repeat(len(part), 1, 1, 1)
        for each, (row, column) in zip(covered, part, strict=True):
            each[:, edges[row] : edges[row + 2], edges[column] : edges[column + 2]] = 0  # normalized: the mean color
        probabilities += model.label_kind.activate(network(covered).float())[:, best].tolist()
    total, count = np.zeros((2, CELLS, CELLS))
    for (row, column), covered_probability in zip(corners, probabilities, strict=True):
        total[row : row + 2, column : column + 2] += probability - covered_probability
        count[row : row + 2, column : column + 2] += 1
    return Occlusion(pixels, (name, probability), int(edges[2]), total / count)
