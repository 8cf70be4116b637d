"""Paired comparisons: McNemar's test, intervals, metrics and their words."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from vpt.search.comparison import Comparison, compare, format_p, interval, mcnemar, paired_interval
from vpt.search.metrics import make_statistic

METRICS = ("top1", "macro_f1", "balanced_accuracy")  # of one class for each image


def draw(accuracy: float, n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(9).integers(4, size=n)
    predicted = np.where(rng.random(n) < accuracy, labels, rng.integers(4, size=n))
    return np.eye(4)[predicted] * 3, labels


@pytest.mark.parametrize("metric", METRICS)
def test_score_of_each_metric_equals_that_of_scikit_learn(metric: str) -> None:
    logits, labels = draw(0.6)
    expected = {
        "top1": metrics.accuracy_score(labels, logits.argmax(1)),
        "macro_f1": metrics.f1_score(labels, logits.argmax(1), average="macro"),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, logits.argmax(1)),
    }
    assert make_statistic(logits, labels, metric)(None) == pytest.approx(expected[metric])


@pytest.mark.parametrize("metric", METRICS)
def test_interval_of_each_metric_contains_the_score(metric: str) -> None:
    logits, labels = draw(0.6)
    low, high = interval(logits, labels, metric)
    assert low < make_statistic(logits, labels, metric)(None) < high
    assert 0.05 < high - low < 0.2


def test_mcnemar_of_few_images_is_the_exact_binomial() -> None:
    assert mcnemar(8, 2) == pytest.approx(0.109375)
    assert mcnemar(0, 0) == 1.0


def test_compare_counts_the_images_that_differ() -> None:
    ours, labels = draw(0.9)
    theirs, _ = draw(0.6, seed=1)
    found = compare(ours, theirs, labels)
    right, wrong = ours.argmax(1) == labels, theirs.argmax(1) == labels
    assert found.wins == int((right & ~wrong).sum()) and found.losses == int((wrong & ~right).sum())
    assert found.gain == pytest.approx((found.wins - found.losses) / 300)
    assert found.low < found.gain < found.high and found.convinces
    assert not compare(theirs, ours, labels).convinces


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (12, 3), (20, 18)])
def test_interval_of_a_paired_gain_has_a_width_and_covers_it(wins: int, losses: int) -> None:
    rng, images = np.random.default_rng(0), 60
    low, high = paired_interval(wins, losses, images)
    assert low < (wins - losses) / images < high and high - low > 0.05
    rates = np.array([wins, losses, images - wins - losses]) / images
    if losses:  # so does the interval of other draws from these rates
        drawn = rng.multinomial(images, rates, 2000)
        bounds = np.array([paired_interval(int(b), int(c), images) for b, c, _ in drawn])
        assert 0.93 < np.mean((bounds[:, 0] < rates[0] - rates[1]) & (rates[0] - rates[1] < bounds[:, 1])) < 0.99


def test_paired_interval_of_a_known_table_is_that_of_the_formula() -> None:
    low, high = paired_interval(6, 2, 98)  # (6 - 2) / 100 and 1.96 * sqrt(9 / 100 - .04**2) / 10
    assert (low, high) == pytest.approx((0.04 - 0.058274, 0.04 + 0.058274), abs=1e-5)


def test_paired_interval_of_wins_alone_ends_at_one() -> None:
    assert paired_interval(3, 0, 3)[1] == 1 and paired_interval(0, 3, 3)[0] == -1


def test_compare_of_equal_models_has_the_p_of_chance() -> None:
    logits, labels = draw(0.6)
    found = compare(logits, logits, labels, "macro_f1")
    assert (found.gain, found.p, found.doubt) == (0, 1, "no gain")


def test_one_image_of_a_rare_class_convinces_of_nothing() -> None:
    labels = np.repeat([0, 1, 2], [180, 18, 2])
    theirs = np.where(np.arange(200) == 199, 0, labels)
    found = compare(np.eye(3)[labels], np.eye(3)[theirs], labels, "balanced_accuracy")
    assert found.gain > found.error and found.differing == 1 and found.doubt == "1 differing prediction cannot tell"


def comparison(**values: float) -> Comparison:
    given = {
        "gain": 0.023,
        "low": 0.004,
        "high": 0.041,
        "error": 0.01,
        "wins": 30,
        "losses": 15,
        "p": 0.04,
        "loss_gain": 0.1,
    }
    return Comparison(images=400, metric="top1", **{**given, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "convinces"),
    [
        ({}, True),
        ({"wins": 8, "losses": 1}, False),  # too few images differ
        ({"wins": 20, "losses": 17}, False),  # within the noise
        ({"loss_gain": -0.01}, False),
        ({"gain": -0.01}, False),  # a metric may fall where more images are correct
    ],
)
def test_comparison_convinces_only_beyond_noise_and_loss(values: dict[str, float], convinces: bool) -> None:
    assert comparison(**values).convinces is convinces


def test_describe_of_a_gain_and_a_loss_reads_as_a_sentence() -> None:
    text = "prompts beat the probe by 2.3 points (95 % interval 0.4 to 4.1, McNemar p = .04, 400 images)"
    assert comparison().describe("prompts") == text
    text = "prompts are below the probe by 2.0 points (95 % interval -1.0 to 5.0, McNemar p = .2, 400 images)"
    assert comparison(gain=-0.02, low=-0.05, high=0.01, p=0.2).describe("prompts") == text
    assert comparison(gain=0, low=-0.01, high=0.01, p=1).describe("prompts").startswith("prompts equal the probe (")


def test_format_p_of_values_drops_the_zero() -> None:
    texts = ["p = .04", "p < .001", "p = .22", "p = .97", "p = 1"]
    assert [format_p(p) for p in (0.04, 0.00001, 0.2188, 0.97, 1.0)] == texts
