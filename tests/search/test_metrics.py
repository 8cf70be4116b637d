"""Metrics of a search by kind of labels, the paired bootstrap and its words."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from vpt.search.comparison import Comparison, compare, interval
from vpt.search.metrics import make_statistic

METRICS = ("map", "r2", "mae")


def draw(metric: str, noise: float, n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs of a model with some noise, and labels."""
    fixed, rng = np.random.default_rng(9), np.random.default_rng(seed)
    if metric == "map":
        labels = (fixed.random((n, 3)) < 0.4).astype(np.float32)
        return 2 * labels - 1 + rng.normal(0, noise, labels.shape), labels
    labels = fixed.normal(50, 4, n).astype(np.float32)
    return labels[:, None] + 4 * rng.normal(0, noise, (n, 1)), labels


def value_of(metric: str, outputs: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the metric of scikit-learn."""
    if metric == "map":
        of_class = reference.average_precision_score
        return float(np.mean([of_class(labels[:, k], outputs[:, k], sample_weight=weights) for k in range(3)]))
    of_numbers = reference.r2_score if metric == "r2" else reference.mean_absolute_error
    return float(of_numbers(labels, outputs[:, 0], sample_weight=weights))


@pytest.mark.parametrize("metric", METRICS)
def test_statistic_with_and_without_weights_equals_scikit_learn(metric: str) -> None:
    outputs, labels = draw(metric, 1.0)
    statistic, weights = make_statistic(outputs, labels, metric), np.random.default_rng(1).integers(0, 4, len(labels))
    assert statistic(None) == pytest.approx(value_of(metric, outputs, labels))
    assert statistic(weights) == pytest.approx(value_of(metric, outputs, labels, weights))


@pytest.mark.parametrize("metric", METRICS)
def test_compare_equals_the_paired_bootstrap_of_scipy(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpt.training.bootstrap.RESAMPLES", 200)
    (ours, labels), (theirs, _) = draw(metric, 0.8, 60, seed=1), draw(metric, 1.0, 60, seed=2)
    sign = -1 if metric == "mae" else 1

    def gain(indices: np.ndarray) -> float:
        chosen = np.asarray(indices, int)
        values = [value_of(metric, outputs[chosen], labels[chosen]) for outputs in (ours, theirs)]
        return sign * (values[0] - values[1])

    expected = stats.bootstrap(
        (np.arange(len(labels)),), gain, n_resamples=200, vectorized=False, method="percentile",
        random_state=np.random.default_rng(0),
    )  # fmt: skip
    found = compare(ours, theirs, labels, metric)
    assert found.gain == pytest.approx(gain(np.arange(len(labels)))) and found.gain > 0
    bounds = expected.confidence_interval
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high), abs=1e-6)
    share = (expected.bootstrap_distribution <= 0).mean()
    assert found.p == pytest.approx(2 * share, abs=2 / 200)
    assert found.wins is found.losses is None and found.convinces == (found.gain > found.error)


@pytest.mark.parametrize("metric", METRICS)
def test_compare_of_groups_of_copies_equals_that_of_the_images(metric: str) -> None:
    (ours, labels), (theirs, _) = draw(metric, 0.8, 40, seed=1), draw(metric, 1.0, 40, seed=2)
    alone, groups = compare(ours, theirs, labels, metric), np.repeat(np.arange(40), 3)
    copies = compare(*(np.repeat(x, 3, axis=0) for x in (ours, theirs, labels)), metric, groups)
    assert (copies.low, copies.gain, copies.high, copies.error) == pytest.approx(
        (alone.low, alone.gain, alone.high, alone.error)
    )
    assert "bootstrap p" in copies.describe("prompts") and "120 images in 40 groups" in copies.describe("prompts")


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("map", "2.3 points of mAP (95 % interval 0.4 to 4.1"),
        ("r2", "0.023 of R² (95 % interval 0.004 to 0.041"),
        ("mae", "0.023 of MAE (95 % interval 0.004 to 0.041"),
    ],
)
def test_describe_of_other_kinds_names_the_metric_and_its_test(metric: str, text: str) -> None:
    found = Comparison(400, metric, 0.023, 0.004, 0.041, 0.01, None, None, 0.04, 0.1)
    assert found.describe("prompts") == f"prompts beat the probe by {text}, bootstrap p = .04, 400 images)"
    assert found.convinces
    assert not Comparison(9, metric, 0.023, 0.004, 0.041, 0.01, None, None, 0.04, 0.1).convinces  # too few images
    assert not Comparison(400, metric, 0.023, -0.02, 0.041, 0.03, None, None, 0.4, 0.1).convinces
    assert not Comparison(400, metric, 0.023, 0.004, 0.041, 0.01, None, None, 0.04, -0.1).convinces


@pytest.mark.parametrize("metric", METRICS)
def test_interval_contains_the_score(metric: str) -> None:
    outputs, labels = draw(metric, 1.0)
    low, high = interval(outputs, labels, metric)
    assert low < value_of(metric, outputs, labels) < high


@pytest.mark.parametrize("metric", ["r2", "mae"])
def test_compare_of_numbers_is_the_same_in_every_unit(metric: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.uniform(400, 700, 80)  # nm
    ours, theirs = (labels[:, None] + rng.normal(0, noise, (80, 1)) for noise in (10, 14))
    nm, m = (compare(unit * ours, unit * theirs, unit * labels, metric) for unit in (1, 1e-9))
    assert m.gain_in_errors == pytest.approx(nm.gain_in_errors) and m.convinces == nm.convinces
    if metric == "r2":
        values = [make_statistic(unit * ours, unit * labels, "r2")(None) for unit in (1, 1e-9, 1e9)]
        assert values == pytest.approx([values[0]] * 3) and values[0] > 0.9


@pytest.mark.parametrize("number", [0.0, 0.1, 1e9])
def test_r2_of_equal_numbers_is_one_or_zero(number: float) -> None:
    labels = np.full(7, number)
    assert make_statistic(labels[:, None], labels, "r2")(None) == 1
    assert make_statistic(labels[:, None] + 1, labels, "r2")(None) == 0
    assert np.isnan(make_statistic(labels[:, None], labels, "r2")(np.ones(7, np.int64)))
