"""Answers as columns of a table of predictions, for every kind of labels."""

from __future__ import annotations

from typing import Any

import pytest

from vpt.model.label_kinds import LabelKind, MultiLabel, Regression, SingleLabel
from vpt.tasks.classification.labels import label_task


@pytest.mark.parametrize(
    ("kind", "answers", "expected"),
    [
        (SingleLabel(), [0.2, 0.7, 0.1], {"label": "b", "probability": 0.7}),
        (MultiLabel((0.1, 0.8, 0.1)), [0.2, 0.7, 0.1], {"label": "a|c", "probability": 0.7}),
        (MultiLabel(), [0.2, 0.3, 0.1], {"label": "", "probability": 0.3}),
        (Regression(3.0, 2.0), [41.5], {"prediction": 41.5}),
    ],
)
def test_columns_of_an_answer_follow_the_kind_of_labels(
    kind: LabelKind, answers: list[float], expected: dict[str, Any]
) -> None:
    assert label_task(kind).columns(answers, ("a", "b", "c")[: len(answers)]) == expected
