"""Ridge regression: predictions for left-out images equal those of a fit without them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from vpt.training.ridge import PENALTIES, Ridge, find_scale, log_loss, near_copies

COLUMNS = [slice(0, 3), slice(5, 12)]


def draw(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return rng.normal(size=(n, 12)) * np.arange(1, 13) + labels[:, None], labels


def fit_directly(x: np.ndarray, targets: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Solve the normal equations with an intercept that is not penalized."""
    mean, intercept = x.mean(0), targets.mean(0)
    centered = x - mean
    weight = np.linalg.solve(centered.T @ centered + penalty * np.eye(x.shape[1]), centered.T @ (targets - intercept))
    return weight, intercept - mean @ weight


@pytest.mark.parametrize("n", [8, 40])  # fewer images than features, and more
@pytest.mark.parametrize("grouped", [False, True])
def test_leave_out_of_each_group_equals_a_fit_without_it(n: int, grouped: bool) -> None:
    features, labels = draw(n)
    ridge = Ridge(features, COLUMNS, labels, 3)
    x = np.concatenate(
        [(features[:, g] - m) * f for g, m, f in zip(COLUMNS, ridge.means, ridge.factors, strict=True)], 1
    )
    targets = np.where(np.arange(3) == labels[:, None], 1.0, -1.0)
    groups = np.arange(n) // 3 * 3 if grouped else np.arange(n)
    found = ridge.leave_out(0.1, groups)
    for group in np.unique(groups):
        inside = groups == group
        weight, bias = fit_directly(x[~inside], targets[~inside], 0.1)
        np.testing.assert_allclose(found.logits[inside] / found.scale, x[inside] @ weight + bias, atol=1e-8)


@pytest.mark.parametrize("n", [8, 40])
@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_leave_out_of_each_image_has_the_errors_of_scikit_learn(n: int, penalty: float) -> None:
    features, labels = draw(n)
    ridge = Ridge(features, COLUMNS, labels, 3)
    x = np.concatenate(
        [(features[:, g] - m) * f for g, m, f in zip(COLUMNS, ridge.means, ridge.factors, strict=True)], 1
    )
    targets = np.where(np.arange(3) == labels[:, None], 1.0, -1.0)
    peer = RidgeCV(alphas=[penalty], store_cv_results=True).fit(x, targets)
    found = ridge.leave_out(penalty)
    np.testing.assert_allclose((found.logits / found.scale - targets) ** 2, peer.cv_results_[..., 0], atol=1e-9)


@pytest.mark.parametrize("n", [8, 40])
def test_solve_on_raw_features_gives_the_direct_solution(n: int) -> None:
    features, labels = draw(n)
    ridge = Ridge(features.astype(np.float32), COLUMNS, labels, 3)
    weight, bias = ridge.solve(0.5, 2.0)
    joined = np.concatenate([features[:, group] for group in COLUMNS], 1)
    means, factors = np.concatenate(ridge.means), np.concatenate(ridge.factors)
    targets = np.where(np.arange(3) == labels[:, None], 1.0, -1.0)
    direct, intercept = fit_directly((joined - means) * factors, targets, 0.5)
    expected = 2 * ((joined - means) * factors @ direct + intercept)
    np.testing.assert_allclose(joined @ weight.T + bias, expected, atol=1e-5)


def test_factors_of_groups_give_each_the_same_variance() -> None:
    features, labels = draw(40)
    features[:, 2] = 7  # a constant has none
    ridge = Ridge(features, COLUMNS, labels, 3)
    variances = [((features[:, g] - m) * f).var(0) for g, m, f in zip(COLUMNS, ridge.means, ridge.factors, strict=True)]
    assert variances[1].sum() == pytest.approx(0.5)
    assert variances[0] == pytest.approx([1 / 6, 1 / 6, 0])


def test_best_penalty_has_the_lowest_smoothed_log_loss_of_the_grid() -> None:
    features, labels = draw(40)
    ridge = Ridge(features, COLUMNS, labels, 3)
    losses = {penalty: ridge.leave_out(penalty).smoothed_loss for penalty in PENALTIES}
    best = ridge.best()
    assert best.smoothed_loss == min(losses.values()) and losses[best.penalty] == best.smoothed_loss


def test_scale_of_logits_minimizes_their_log_loss() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 3)), rng.integers(3, size=200)
    logits[np.arange(200), labels] += 1
    scale = find_scale(logits, labels)
    assert all(log_loss(scale * logits, labels) <= log_loss(factor * scale * logits, labels) for factor in (0.9, 1.1))


def test_near_copies_of_an_image_form_one_group() -> None:
    features = np.random.default_rng(0).normal(size=(20, 30))
    features[7] = features[2] * 1.01
    features[11] = features[7] + 0.001
    groups = near_copies(features)
    assert len({groups[2], groups[7], groups[11]}) == 1
    assert len(np.unique(groups)) == 18


def with_cosine(row: np.ndarray, cosine: float, seed: int) -> np.ndarray:
    """Return other features of the same length, with a cosine to `row`."""
    other = np.random.default_rng(seed).normal(size=row.shape)
    other -= row * (other @ row) / (row @ row)
    length = np.linalg.norm(row)
    return np.asarray(cosine * row + np.sqrt(1 - cosine**2) * length * other / np.linalg.norm(other))


def test_near_copies_begin_at_the_cosine_of_the_docs() -> None:
    features = np.random.default_rng(0).normal(size=(600, 64))
    for row, cosine in ((0, 0.95), (2, 0.97), (4, 0.99)):
        features[row + 1] = with_cosine(features[row], cosine, row)
    groups = near_copies(features)
    assert groups[0] != groups[1] and groups[2] != groups[3] and groups[4] == groups[5]


def test_near_copy_of_a_known_group_of_most_images_stays_alone() -> None:
    features, known = np.random.default_rng(0).normal(size=(200, 64)), np.arange(200)
    known[:120] = 0
    features[150] = with_cosine(features[0], 0.99, 1)  # looks alike
    features[160] = features[0]  # the same image
    groups = near_copies(features, known)
    assert len(set(groups[:120])) == 1 and groups[160] == groups[0] and groups[150] != groups[0]
    assert near_copies(features, np.arange(200))[150] == near_copies(features, np.arange(200))[0]


def test_scale_is_finite_where_all_left_out_images_are_right() -> None:
    """The plain log loss has no minimum there; the smoothed one leaves each image a doubt of about 1 / (n + 2)."""
    labels = np.arange(60) % 3
    logits = np.where(np.arange(3) == labels[:, None], 1.0, -1.0)
    doubt = 1 - np.exp(-log_loss(find_scale(logits, labels) * logits, labels))
    assert 0.5 / 62 < doubt < 1 / 62


def test_leave_out_of_one_image_of_each_class_is_at_chance() -> None:
    features, _ = draw(3)
    alone = Ridge(features, COLUMNS, np.arange(3), 3).best()
    assert alone.is_at_chance and alone.scale == 1
    features, labels = draw(40)
    assert not Ridge(features, COLUMNS, labels, 3).best().is_at_chance


def test_leave_out_of_all_images_at_once_predicts_nothing() -> None:
    features, labels = draw(12)
    found = Ridge(features, COLUMNS, labels, 3).best(np.zeros(12, np.int64))
    assert np.isfinite(found.logits).all() and found.is_at_chance


@pytest.mark.parametrize("labels", [np.array([0, 2, 1]), np.array([[1.0, 0], [0, 0], [1, 1]])])
def test_smoothed_log_loss_is_that_of_mixed_targets(labels: np.ndarray) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 3 if labels.ndim == 1 else 2))
    if labels.ndim == 1:
        targets = 0.9 * np.eye(3)[labels] + 0.1 / 3
        expected = -(targets * np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))).sum(1).mean()
    else:
        targets, p = 0.9 * labels + 0.05, 1 / (1 + np.exp(-logits))
        expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean()
    assert log_loss(logits, labels, 0.1) == pytest.approx(expected)


def test_leave_out_of_large_groups_equals_that_of_a_smaller_system() -> None:
    """Groups of more images than there are features take a system of the size of the features."""
    features, labels = draw(60)
    ridge = Ridge(features, COLUMNS, labels, 3)
    groups = np.repeat([0, 1, 2], [40, 15, 5])
    found = ridge.leave_out(0.1, groups)
    x = np.concatenate(
        [(features[:, g] - m) * f for g, m, f in zip(COLUMNS, ridge.means, ridge.factors, strict=True)], 1
    )
    targets = np.where(np.arange(3) == labels[:, None], 1.0, -1.0)
    for group in range(3):
        inside = groups == group
        weight, bias = fit_directly(x[~inside], targets[~inside], 0.1)
        np.testing.assert_allclose(found.logits[inside] / found.scale, x[inside] @ weight + bias, atol=1e-7)


def test_gain_is_above_that_of_the_shares_of_classes() -> None:
    rng, labels = np.random.default_rng(0), np.array([0] * 80 + [1] * 10 + [2] * 10)
    noise = rng.normal(size=(100, 12))
    assert Ridge(noise, COLUMNS, labels, 3).best().is_at_chance
    found = Ridge(noise + 2 * np.eye(12)[labels], COLUMNS, labels, 3).best()
    assert found.gain > 5 * found.gain_error
    several = (noise[:, :4] > 1.2).astype(np.float32)
    assert Ridge(rng.normal(size=(100, 12)), COLUMNS, several, 4).best().is_at_chance
    assert not Ridge(noise, [slice(0, 12)], several, 4).best().is_at_chance
    numbers = noise @ rng.normal(size=12)
    numbers = (numbers - numbers.mean()) / numbers.std()
    assert not Ridge(noise, [slice(0, 12)], numbers, 1).best().is_at_chance
    assert Ridge(rng.normal(size=(100, 12)), COLUMNS, numbers, 1).best().is_at_chance
