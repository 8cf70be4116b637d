"""The picture of an evaluation."""

from collections.abc import Sequence
from pathlib import Path

from vpt.plots import figures, label_scores
from vpt.tasks.evaluation import Evaluation


def draw_evaluation(
    path: Path, evaluation: Evaluation, classes: Sequence[str], title: str, *, unit: str = "counts"
) -> None:
    """Draw the confusion matrix, predicted against true numbers, or the scores of the classes of several labels.

    Args:
        path: Path of the picture.
        evaluation: The scores.
        classes: Names of the classes, or of the number.
        title: Title of the picture.
        unit: Unit of the confusion matrix, "counts" or "percent". Default: "counts".
    """
    numbers = None if evaluation.scores is None else evaluation.scores.numbers
    if numbers is not None:
        label_scores.predicted_against_true(path, numbers, classes[0], title)
    elif evaluation.confusion.size:
        figures.confusion_matrix(path, evaluation.confusion, classes, title, unit=unit)
    else:
        label_scores.class_scores(path, evaluation.per_class, "average precision, %", title)
