"""Kinds of labels: how models learn them, how predictions are scored, and what a prediction is."""

from typing import Any

from numpy.typing import NDArray

from vpt.data.label_kinds import kind_of_labels
from vpt.model.label_kinds import LabelKind
from vpt.tasks.classification.labels.base import LabelTask as LabelTask
from vpt.tasks.classification.labels.multi_label import MultiLabelTask
from vpt.tasks.classification.labels.regression import RegressionTask
from vpt.tasks.classification.labels.single_label import SingleLabelTask

LABEL_TASKS: dict[str, type[LabelTask[Any]]] = {
    "single_label": SingleLabelTask,
    "multi_label": MultiLabelTask,
    "regression": RegressionTask,
}


def label_task(kind: LabelKind) -> LabelTask[Any]:
    """Return how labels of a kind are learned, scored and predicted.

    Args:
        kind: The kind of a model's labels.

    Returns:
        The task of this kind.
    """
    return LABEL_TASKS[kind.name](kind)


def fit_label_kind(labels: NDArray[Any]) -> LabelKind:
    """Return the kind of training labels, with the mean and standard deviation of numbers.

    Args:
        labels: Labels of the training images, of a `vpt.data.dataset.Split`.

    Returns:
        The kind.
    """
    return LABEL_TASKS[kind_of_labels(labels)].fit(labels)
