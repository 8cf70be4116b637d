"""Pictures of what a model predicts, for a report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpt.training import Scores


@dataclass(frozen=True, eq=False)
class Picture:
    """Images side by side with what they show.

    Attributes:
        caption: What is to be seen, in one line.
        images: Name of an image, empty for the only one, -> uint8 (height, width, 3).
        notes: Name, value and color (such as "#0072b2") of what the images show.
    """

    caption: str
    images: Mapping[str, NDArray[np.uint8]]
    notes: tuple[tuple[str, str, str], ...] = ()


def confident_mistakes(
    scores: Scores, classes: Sequence[str], image_of: Callable[[int], NDArray[np.uint8]], limit: int = 8
) -> list[Picture]:
    """Return the images that a model takes for another class with the highest probability.

    Args:
        scores: Scores with the counts and the confidences of the images.
        classes: Names of the classes.
        image_of: Function of the index of a scored image that returns it, uint8 (height, width, 3).
        limit: Maximum number of pictures. Default: 8.

    Returns:
        The pictures, the most confident mistake first; none where the scores do not know single images.
    """
    if scores.counts is None or scores.confidences is None or not scores.confusion.size:
        return []
    true, predicted = np.divmod(scores.counts.tocsr().indices, len(classes))
    wrong = np.flatnonzero(true != predicted)
    worst = wrong[np.argsort(-scores.confidences[wrong], kind="stable")][:limit]
    return [
        Picture(
            f"{classes[true[index]]}, taken for {classes[predicted[index]]} ({100 * scores.confidences[index]:.0f} %)",
            {"": image_of(index)},
        )
        for index in worst.tolist()
    ]
