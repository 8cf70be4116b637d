"""`--metric`: what val counts for the kept epoch and the end of training, and the result shows first."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from vpt.errors import SpecError
from vpt.model.label_kinds import LabelKind, MultiLabel, Regression, SingleLabel
from vpt.search import wants_search
from vpt.tasks.classification import ClassificationConfig, training
from vpt.tasks.classification.labels import label_task
from vpt.tasks.classification.metrics import METRICS, choose_metric, measure
from vpt.tasks.evaluation import make_evaluation
from vpt.training import EpochMetrics, TrainingConfig
from vpt.training.kept_weights import best_epoch

RNG = np.random.default_rng(0)
LABELS = RNG.integers(3, size=60)
LOGITS = np.eye(3)[LABELS] + RNG.normal(0, 1, (60, 3))
TAGS = (RNG.random((60, 3)) < 0.4).astype(np.float32)
NUMBERS = RNG.normal(20, 5, 60).astype(np.float32)
PREDICTED = NUMBERS + RNG.normal(0, 2, 60).astype(np.float32)


@pytest.mark.parametrize(
    ("metric", "kind", "logits", "labels", "expected"),
    [
        ("top1", SingleLabel(), LOGITS, LABELS, reference.accuracy_score(LABELS, LOGITS.argmax(1))),
        ("macro_f1", SingleLabel(), LOGITS, LABELS, reference.f1_score(LABELS, LOGITS.argmax(1), average="macro")),
        (
            "balanced_accuracy", SingleLabel(), LOGITS, LABELS,
            reference.balanced_accuracy_score(LABELS, LOGITS.argmax(1)),
        ),
        ("map", MultiLabel(), LOGITS, TAGS, reference.average_precision_score(TAGS, LOGITS)),
        ("r2", Regression(), PREDICTED[:, None], NUMBERS, reference.r2_score(NUMBERS, PREDICTED)),
        ("mae", Regression(), PREDICTED[:, None], NUMBERS, reference.mean_absolute_error(NUMBERS, PREDICTED)),
    ],
)  # fmt: skip
def test_metric_of_each_kind_equals_that_of_scikit_learn(
    metric: str, kind: LabelKind, logits: np.ndarray, labels: np.ndarray, expected: float
) -> None:
    scores = label_task(kind).score(torch.from_numpy(logits), torch.from_numpy(labels))
    assert measure(scores, metric) == pytest.approx(float(expected), abs=1e-6)
    assert make_evaluation("val", 60, scores, ("a", "b", "c")).metrics.keys() <= METRICS.keys() | {"mean_per_class"}


def test_val_r2_beside_another_metric_is_that_of_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, labels = Regression(20.0, 5.0), torch.from_numpy(NUMBERS)
    logits = torch.from_numpy((PREDICTED[:, None] - 20) / 5)
    model, val = SimpleNamespace(label_kind=kind), SimpleNamespace(labels=labels)
    monkeypatch.setattr(training, "predict_logits", lambda *args, **options: logits)
    config, dataset = ClassificationConfig(metric="mae"), SimpleNamespace(device=torch.device("cpu"))
    found = training.ClassificationObjective(model, None, dataset, val, config, bf16=False).validate()  # type: ignore[arg-type]
    assert found is not None
    expected = {"mae": reference.mean_absolute_error(NUMBERS, PREDICTED), "r2": reference.r2_score(NUMBERS, PREDICTED)}
    assert found[1] == pytest.approx(expected, abs=1e-5)


def test_default_metric_is_the_first_of_each_kind() -> None:
    chosen = {kind: choose_metric(kind) for kind in ("single_label", "multi_label", "regression")}  # type: ignore[arg-type]
    assert chosen == {"single_label": "top1", "multi_label": "map", "regression": "r2"}


@pytest.mark.parametrize(
    ("kind", "metric", "known"),
    [
        (SingleLabel(), "map", "top1, macro_f1, balanced_accuracy"),
        (MultiLabel(), "macro_f1", "map"),
        (Regression(), "top1", "r2, mae"),
    ],
)
def test_metric_of_another_kind_is_refused(kind: LabelKind, metric: str, known: str) -> None:
    with pytest.raises(SpecError, match=f"metric is '{metric}', and the labels are {kind.name}; write {known}, or"):
        label_task(kind).check(ClassificationConfig(metric=metric))  # type: ignore[arg-type]


def test_epoch_that_is_kept_has_the_least_error() -> None:
    history = [EpochMetrics(k + 1, 1.0, 0.5, None, value, 0.1, 1.0) for k, value in enumerate((3.0, 1.5, 2.0, 1.5))]
    assert best_epoch(history, ClassificationConfig(metric="mae").metric_sign) == 2
    assert best_epoch(history, ClassificationConfig(metric="r2").metric_sign) == 1
    assert ClassificationConfig(TrainingConfig()).metric_sign == 1


def test_size_of_a_search_beside_a_length_is_refused() -> None:
    assert wants_search(None, {"epochs": None}, 5.0)
    with pytest.raises(SpecError, match=r"max_size is 5 and epochs is 3: the size limits what a search tries"):
        wants_search(None, {"epochs": 3}, 5.0)
