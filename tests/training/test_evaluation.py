"""Scores of a model: rates of classes, calibration and intervals, against scikit-learn, SciPy and sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics

from vpt.training.calibration import calibration_error, confidence_bins
from vpt.training.evaluation import Scores, score_logits


def draw(n: int = 60, classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[labels]
    return torch.from_numpy(logits), torch.from_numpy(labels)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("absent", [(), (0,), (1,), (0, 1)])
def test_class_rates_and_macro_equal_those_of_scikit_learn(absent: tuple[int, ...]) -> None:
    """Class 0 is left out of the labels or class 1 out of the predictions, which leaves rates without any case."""
    logits, labels = draw()
    if 0 in absent:
        labels[labels == 0] = 2
    if 1 in absent:
        logits[:, 1] = -100.0
    scores, predicted = score_logits(logits, labels), logits.argmax(1)
    each = metrics.precision_recall_fscore_support(labels, predicted, labels=range(4), zero_division=0)
    for rate, expected in zip(("precision", "recall", "f1"), each, strict=False):
        assert scores.class_rates[rate] == pytest.approx(expected)
    macro = metrics.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    assert list(scores.macro.values()) == pytest.approx(macro[:3])


def test_class_rates_of_a_class_without_any_case_are_nan() -> None:
    scores = Scores(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), 0.0)
    assert all(np.isnan(values[2]) for values in scores.class_rates.values())
    assert scores.macro["recall"] == pytest.approx((3 / 4 + 1) / 2)


def test_calibration_error_equals_the_sum_over_bins_by_hand() -> None:
    confidences = torch.tensor([0.5, 0.52, 0.9, 0.91, 1.0])
    correct = torch.tensor([True, False, True, True, False])
    bins = confidence_bins(confidences, correct)
    assert bins[:, 0].nonzero()[0].tolist() == [7, 13, 14]  # 7/15 = .467, 13/15 = .867, 14/15 = .933
    exact = confidence_bins(torch.tensor([0.6], dtype=torch.float64), torch.tensor([True]))
    assert exact[:, 0].nonzero()[0].tolist() == [9]  # 9/15: a bin includes its lower bound
    by_hand = (abs(1 - 1.02) + abs(2 - 1.81) + abs(0 - 1)) / 5
    assert calibration_error(bins) == pytest.approx(by_hand, abs=1e-6)


def test_intervals_equal_those_of_scipy() -> None:
    logits, labels = draw()
    predicted, found = logits.argmax(1).numpy(), score_logits(logits, labels).intervals()
    each_alone = score_logits(logits, labels).intervals(np.arange(len(labels)))
    references = {"top1": metrics.accuracy_score, "macro_f1": lambda y, p: metrics.f1_score(y, p, average="macro")}
    for name, reference in references.items():
        expected = stats.bootstrap(
            (labels.numpy(), predicted), reference, n_resamples=1000, paired=True, vectorized=False,
            method="percentile", random_state=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        assert each_alone[name] == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found["macro_f1"] == each_alone["macro_f1"]
    right = int((predicted == labels.numpy()).sum())
    expected = stats.binomtest(right, len(labels)).proportion_ci(method="wilson")
    assert found["top1"] == pytest.approx((expected.low, expected.high))


def test_intervals_by_groups_draw_whole_groups() -> None:
    """Copies of images add nothing to what is known, if they are drawn together."""
    logits, labels = draw(30)
    copied = score_logits(logits.repeat(4, 1), labels.repeat(4))
    groups = np.tile(np.arange(30), 4)
    alone = score_logits(logits, labels).intervals(np.arange(30))
    grouped = copied.intervals(groups)
    assert all(grouped[name] == pytest.approx(bounds) for name, bounds in alone.items())
    narrow, wide = (found["top1"][1] - found["top1"][0] for found in (copied.intervals(), alone))
    assert narrow < 0.7 * wide


def test_intervals_of_many_classes_contain_the_score() -> None:
    labels = torch.arange(30)
    logits = torch.nn.functional.one_hot((labels // 2) * 2, 2_000).float()
    found = score_logits(logits, labels)
    low, high = found.intervals()["top1"]
    assert 0.2 < low < 0.5 < high < 0.8
