"""Paired comparison of two models on the same images: McNemar's test, intervals, and their words."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from vpt.core.text import pluralize
from vpt.training.bootstrap import bootstrap, percentile_interval
from vpt.training.ridge import log_loss

METRICS: dict[str, str] = {"top1": "top-1", "macro_f1": "macro F1", "balanced_accuracy": "balanced accuracy"}

_FLIPS = 9999
_MIN_DISCORDANT = 10  # images that one model classifies correctly and the other does not


def score(confusion: NDArray[Any], metric: str) -> NDArray[np.float64]:
    """Return a metric of confusion matrices.

    Args:
        confusion: Counts (..., true, predicted).
        metric: A key of `METRICS`.

    Returns:
        The metric (...), between 0 and 1, over the classes that occur.
    """
    hits, true, predicted = np.einsum("...ii->...i", confusion), confusion.sum(-1), confusion.sum(-2)
    if metric == "top1":
        return np.asarray(hits.sum(-1) / np.maximum(1, true.sum(-1)), np.float64)
    values = hits / np.maximum(1, true) if metric == "balanced_accuracy" else 2 * hits / np.maximum(1, true + predicted)
    occurs = true > 0
    return np.asarray((values * occurs).sum(-1) / np.maximum(1, occurs.sum(-1)), np.float64)


def count_confusion(
    logits: NDArray[Any], labels: NDArray[np.int64], weights: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Count predictions by true and predicted class.

    Args:
        logits: Logits (n, classes).
        labels: Class of each image (n,).
        weights: How often each image counts (n,). Default: once.

    Returns:
        Counts (classes, classes).
    """
    classes = logits.shape[1]
    pairs = labels * classes + logits.argmax(1)
    counts = np.bincount(pairs, weights, classes * classes).reshape(classes, classes)
    return counts.astype(np.int64)


def interval(
    logits: NDArray[Any], labels: NDArray[np.int64], metric: str, groups: NDArray[np.int64] | None = None
) -> tuple[float, float]:
    """Return the 95 % interval of a metric: Wilson's for top-1 of single images, else of the bootstrap.

    Args:
        logits: Logits (n, classes).
        labels: Class of each image (n,).
        metric: A key of `METRICS`.
        groups: Group of each image (n,); images of a group are drawn together. Default: every image is on its own.

    Returns:
        Lower and upper bound, between 0 and 1.
    """
    if metric == "top1" and groups is None:
        return wilson(int((logits.argmax(1) == labels).sum()), len(labels))
    return percentile_interval(
        bootstrap(labels, lambda weights: float(score(count_confusion(logits, labels, weights), metric)), groups=groups)
    )


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a probability.

    Args:
        successes: Number of successes.
        trials: Number of trials, at least 1.

    Returns:
        Lower and upper bound.
    """
    found = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class Comparison:
    """A model against a baseline on the same images.

    Attributes:
        images: Number of images.
        metric: A key of `METRICS`.
        gain: Metric of the model minus that of the baseline.
        low: Lower bound of the 95 % interval of the gain.
        high: Upper bound.
        error: Standard error of the gain.
        wins: Images that only the model classifies correctly (c).
        losses: Images that only the baseline classifies correctly (b).
        p: p of McNemar's exact test, two-sided; over groups, that of the sign-flip test.
        loss_gain: Log loss of the baseline minus that of the model.
        groups: Number of groups that the interval, the error and p are over, or None if every image is on its own.
    """

    images: int
    metric: str
    gain: float
    low: float
    high: float
    error: float
    wins: int
    losses: int
    p: float
    loss_gain: float
    groups: int | None = None

    @property
    def gain_in_errors(self) -> float:
        """Gain in standard errors: (c - b) / sqrt(b + c), or by the bootstrap over groups."""
        if self.groups is not None:
            return self.gain / max(self.error, 1e-12)
        return (self.wins - self.losses) / math.sqrt(max(1, self.wins + self.losses))

    @property
    def convinces(self) -> bool:
        """True if the model is to replace the baseline: a gain of 1 standard error, c + b >= 10, no greater loss."""
        if self.wins + self.losses < _MIN_DISCORDANT or self.loss_gain < 0 or self.gain <= 0:
            return False
        return self.gain_in_errors >= 1

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return asdict(self)

    def describe(self, name: str) -> str:
        """Return the comparison with the probe in words.

        Args:
            name: Name of the model, a plural such as "prompts".

        Returns:
            Such as "prompts beat the probe by 2.3 points (95 % interval 0.4 to 4.1, McNemar p = .04, 400 images)".
        """
        verb = "beat" if self.gain > 0 else "are below" if self.gain < 0 else "equal"
        by = f" by {abs(100 * self.gain):.1f} points" if self.gain else ""
        bounds = sorted((100 * self.low, 100 * self.high) if self.gain >= 0 else (-100 * self.high, -100 * self.low))
        text = f"95 % interval {bounds[0]:.1f} to {bounds[1]:.1f}"
        points = "" if self.metric == "top1" else f" of {METRICS[self.metric]}"
        test, among = (
            ("McNemar", "") if self.groups is None else ("sign flips", f" in {pluralize(self.groups, 'group')}")
        )
        return f"{name} {verb} the probe{by}{points} ({text}, {test} {format_p(self.p)}, "\
               f"{pluralize(self.images, 'image')}{among})"  # fmt: skip


def compare(
    logits: NDArray[Any],
    baseline: NDArray[Any],
    labels: NDArray[np.int64],
    metric: str = "top1",
    groups: NDArray[np.int64] | None = None,
) -> Comparison:
    """Compare a model with a baseline on the same images.

    Args:
        logits: Logits of the model (n, classes).
        baseline: Logits of the baseline (n, classes).
        labels: Class of each image (n,).
        metric: A key of `METRICS`. Default: "top1".
        groups: Group of each image (n,), which is drawn whole. Default: every image is on its own.

    Returns:
        The comparison.
    """
    ours, theirs = logits.argmax(1) == labels, baseline.argmax(1) == labels

    def gain(weights: NDArray[np.int64] | None) -> float:
        confusions = [count_confusion(found, labels, weights) for found in (logits, baseline)]
        return float(score(confusions[0], metric) - score(confusions[1], metric))

    gains = bootstrap(labels, gain, groups=groups)
    wins, losses = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    low, high = percentile_interval(gains)
    p = mcnemar(wins, losses) if groups is None else sign_flip(ours.astype(np.int64) - theirs, groups)
    return Comparison(
        images=len(labels), metric=metric, gain=gain(None), low=low, high=high, error=float(gains.std()),
        wins=wins, losses=losses, p=p, groups=None if groups is None else len(np.unique(groups)),
        loss_gain=log_loss(np.asarray(baseline, np.float64), labels) - log_loss(np.asarray(logits, np.float64), labels),
    )  # fmt: skip


def mcnemar(wins: int, losses: int) -> float:
    """Return p of McNemar's exact test, two-sided.

    Args:
        wins: Images that only one model classifies correctly.
        losses: Images that only the other classifies correctly.

    Returns:
        The p-value; 1 where there is no such image.
    """
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def sign_flip(differences: NDArray[np.int64], groups: NDArray[np.int64]) -> float:
    """Return p of the sign-flip test over groups, two-sided: McNemar's test for images that are not independent.

    Args:
        differences: 1 for an image that only the model classifies correctly, -1 for one of the baseline, else 0 (n,).
        groups: Group of each image (n,).

    Returns:
        The p-value, of 9,999 draws.
    """
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], differences)
    sums = sums[sums != 0]
    signs = np.random.default_rng(0).choice(np.array((-1, 1), np.int8), (_FLIPS, len(sums)))
    return float((1 + (np.abs(signs @ sums) >= abs(sums.sum())).sum()) / (_FLIPS + 1))


def format_p(p: float) -> str:
    """Return a p-value as text, such as "p = .04"."""
    if p < 0.001:
        return "p < .001"
    return f"p = {p:.2g}".replace("0.", ".", 1) if p < 0.995 else "p = 1"
