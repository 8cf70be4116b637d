"""Paired comparison of two models on the same images: McNemar's test or the bootstrap, intervals, and their words."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from vpt.core.intervals import wilson
from vpt.core.metrics import PLAIN_METRICS
from vpt.core.text import pluralize
from vpt.search.metrics import describe_bounds, describe_gain, make_statistic
from vpt.tasks.classification.metrics import METRICS
from vpt.training.bootstrap import bootstrap, percentile_interval, rate_interval, resamples_for
from vpt.training.ridge import log_loss

_FLIPS = 9999
_QUANTILE = 1.959964  # of a normal distribution, for 95 %
_ONE_BELOW = 0.1587  # quantile of a normal distribution that is one standard error below its mean
_MIN_DISCORDANT = 10  # images that one model classifies correctly and the other does not
_MIN_GROUPS = 3  # that have an interval


def interval(
    outputs: NDArray[Any], labels: NDArray[Any], metric: str, groups: NDArray[np.int64] | None = None
) -> tuple[float, float]:
    """Return the 95 % interval of a metric: Wilson's for top-1 of single images, else of the bootstrap.

    Args:
        outputs: Logits (n, classes), or predicted numbers (n, 1), in the unit of the labels.
        labels: Labels of the images (n, ...).
        metric: A key of `METRICS`, of the kind of the labels.
        groups: Group of each image (n,); images of a group are drawn together. Default: every image is on its own.

    Returns:
        Lower and upper bound.
    """
    if metric == "top1" and groups is None:
        return wilson(int((outputs.argmax(1) == labels).sum()), len(labels))
    statistic = make_statistic(outputs, labels, metric)
    values = bootstrap(np.arange(len(labels)), statistic, groups=groups, resamples=resamples_for(labels))
    if metric not in PLAIN_METRICS:
        return rate_interval(values, len(labels) if groups is None else len(np.unique(groups)))
    low, high = percentile_interval(values)
    return (statistic(None), statistic(None)) if np.isnan(low) else (low, high)


@dataclass(frozen=True)
class Comparison:
    """A model against a baseline on the same images.

    Attributes:
        images: Number of images.
        metric: A key of `METRICS`.
        gain: Metric of the model minus that of the baseline; of an error, that of the baseline minus the model's.
        low: Lower bound of the 95 % interval of the gain.
        high: Upper bound.
        error: Standard error of the gain; for R² and MAE, how far the quantile of the resampled gains that a normal
            distribution has one standard error nearer to 0 is from it.
        wins: Images that only the model classifies correctly (c), if the metric is top-1; None for other metrics.
        losses: Images that only the baseline classifies correctly (b), or None.
        p: p of McNemar's exact test, two-sided; over groups, that of the sign-flip test; for other metrics than top-1,
            twice the share of resampled gains on the other side of 0.
        loss_gain: Log loss, or squared error, of the baseline minus that of the model.
        groups: Number of groups that the interval, the error and p are over, or None if every image is on its own.
        differing: Images that the two classify differently, where each has one class; None for other labels.
    """

    images: int
    metric: str
    gain: float
    low: float
    high: float
    error: float
    wins: int | None
    losses: int | None
    p: float
    loss_gain: float
    groups: int | None = None
    differing: int | None = None

    @property
    def gain_in_errors(self) -> float:
        """Gain in standard errors: (c - b) / sqrt(b + c), or by the bootstrap."""
        if self.groups is not None or self.wins is None or self.losses is None:
            if self.gain and not self.error:
                return math.copysign(math.inf, self.gain)
            return self.gain / (self.error or 1.0)
        return (self.wins - self.losses) / math.sqrt(max(1, self.wins + self.losses))

    @property
    def doubt(self) -> str:
        """Why the model is not to replace the baseline; empty if it is.

        It needs a gain of 1 standard error, c + b >= 10, no greater loss, and three groups where there are groups. For
        macro F1 and balanced accuracy, all images that are classified differently are counted instead of c + b; for
        several labels and numbers, all images.
        """
        differing = self.images if self.differing is None else self.differing
        if self.wins is not None and self.losses is not None:
            differing = self.wins + self.losses
        if self.gain <= 0:
            return "no gain"
        if self.groups is not None and self.groups < _MIN_GROUPS:
            return f"{pluralize(self.groups, 'group')} cannot tell"
        if differing < _MIN_DISCORDANT:
            by_images = self.wins is None and self.differing is None
            few = pluralize(differing, "image" if by_images else "differing prediction")
            return f"{few} cannot tell"
        if self.loss_gain < 0:
            return f"its {'squared error' if self.metric in PLAIN_METRICS else 'log loss'} is higher"
        if self.metric in PLAIN_METRICS and self.error == 0:
            return "resampled images do not differ"
        return "" if self.gain_in_errors >= 1 else "the gain is below its standard error"

    @property
    def convinces(self) -> bool:
        """True if the model is to replace the baseline."""
        return not self.doubt

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
        by = f" by {describe_gain(self.metric, abs(self.gain))}" if self.gain else ""
        bounds = (self.low, self.high) if self.gain >= 0 else (0.0 - self.high, 0.0 - self.low)  # no -0.0
        among = "" if self.groups is None else f" in {pluralize(self.groups, 'group')}"
        images = f"{pluralize(self.images, 'image')}{among}"
        if self.groups is not None and self.groups < _MIN_GROUPS:
            return f"{name} {verb} the probe{by} ({images}, too few for an interval)"
        test = "bootstrap" if self.wins is None else "McNemar" if self.groups is None else "sign flips"
        interval_text = f"95 % interval {describe_bounds(self.metric, *bounds)}"
        return f"{name} {verb} the probe{by} ({interval_text}, {test} {format_p(self.p)}, {images})"


def compare(
    outputs: NDArray[Any],
    baseline: NDArray[Any],
    labels: NDArray[Any],
    metric: str = "top1",
    groups: NDArray[np.int64] | None = None,
) -> Comparison:
    """Compare a model with a baseline on the same images.

    Args:
        outputs: Logits of the model (n, classes), or predicted numbers (n, 1), in the unit of the labels.
        baseline: Those of the baseline.
        labels: Labels of the images (n, ...).
        metric: A key of `METRICS`, of the kind of the labels. Default: "top1".
        groups: Group of each image (n,), which is drawn whole. Default: every image is on its own.

    Returns:
        The comparison.
    """
    sign = METRICS[metric].sign
    model, other = make_statistic(outputs, labels, metric), make_statistic(baseline, labels, metric)
    gain = sign * (model(None) - other(None))
    gains = bootstrap(
        np.arange(len(labels)),
        lambda weights: sign * (model(weights) - other(weights)),
        groups=groups,
        resamples=resamples_for(labels),
    )
    gains = gains[~np.isnan(gains)] if not np.isnan(gains).all() else np.array([gain])
    low, high = percentile_interval(gains)
    error = gains.std()
    if metric in PLAIN_METRICS:  # a few draws of nearly equal numbers, whose R² is far below 0, would rule it
        error = abs(gain - np.quantile(gains, _ONE_BELOW if gain > 0 else 1 - _ONE_BELOW))
    wins, losses, differing, p = None, None, None, _share_beyond(gains)
    if METRICS[metric].kind == "single_label":
        differing = int((outputs.argmax(1) != baseline.argmax(1)).sum())
    if metric == "top1":
        ours, theirs = outputs.argmax(1) == labels, baseline.argmax(1) == labels
        wins, losses = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        if groups is None:
            p, (low, high) = mcnemar(wins, losses), paired_interval(wins, losses, len(labels))
        else:
            p = sign_flip(ours.astype(np.int64) - theirs, groups)
    losses_of = [log_loss(np.asarray(given, np.float64), labels) for given in (baseline, outputs)]
    return Comparison(
        images=len(labels), metric=metric, gain=gain, low=low, high=high,
        error=float(error), wins=wins, losses=losses, p=p,
        groups=None if groups is None else len(np.unique(groups)), loss_gain=losses_of[0] - losses_of[1],
        differing=differing,
    )  # fmt: skip


def _share_beyond(gains: NDArray[np.float64]) -> float:
    """Return twice the share of resampled gains on the rarer side of 0, at most 1: a two-sided p by the bootstrap."""
    rarer = min((gains <= 0).sum(), (gains >= 0).sum())
    return min(1.0, float(2 * (1 + rarer) / (1 + len(gains))))


def mcnemar(wins: int, losses: int) -> float:
    """Return p of McNemar's exact test, two-sided.

    Args:
        wins: Images that only one model classifies correctly.
        losses: Images that only the other classifies correctly.

    Returns:
        The p-value; 1 where there is no such image.
    """
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def paired_interval(wins: int, losses: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a difference of two accuracies on the same images (Agresti and Min, 2005).

    It has a width where resampled images have none: where few predictions differ, or all of them to one side.

    Args:
        wins: Images that only one model classifies correctly.
        losses: Images that only the other classifies correctly.
        images: Number of images.

    Returns:
        Lower and upper bound.
    """
    count = images + 2  # half an image more in each of the four cells
    middle = (wins - losses) / count
    width = _QUANTILE * math.sqrt((wins + losses + 1) / count - middle**2) / math.sqrt(count)
    return max(-1.0, middle - width), min(1.0, middle + width)


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
