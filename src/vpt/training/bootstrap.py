"""The bootstrap over images, or over groups of images."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.core.intervals import wilson

RESAMPLES = 1000
_FEWEST, _WORK = 200, 40_000_000  # draws of several labels, and draws times labels of all images
_LEVELS = (0.025, 0.975)


def bootstrap(
    labels: NDArray[np.int64],
    statistic: Callable[[NDArray[np.int64]], Any],
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
    resamples: int | None = None,
) -> NDArray[np.float64]:
    """Return a statistic of resampled images.

    Args:
        labels: Class of each image (n,).
        statistic: Function of the weights of the images (n,), how often each was drawn, to a number or numbers (k,).
        seed: Seed of the draws. Default: 0.
        groups: Group of each image (n,); images of a group are drawn together. Default: every image is on its own.
        resamples: Number of draws. Default: 1000.

    Returns:
        Its values (resamples,) or (resamples, k).
    """
    index = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    rng, n = np.random.default_rng(seed), int(index.max()) + 1
    draws = (np.bincount(rng.integers(n, size=n), minlength=n)[index] for _ in range(resamples or RESAMPLES))
    return np.array([statistic(weights) for weights in draws])


def resamples_for(labels: NDArray[Any]) -> int:
    """Return the number of draws for images with labels: fewer of many images with several labels, which take long.

    Args:
        labels: Labels of the images (n, ...).

    Returns:
        The number, 200 to 1000.
    """
    return RESAMPLES if labels.ndim == 1 else min(RESAMPLES, max(_FEWEST, _WORK // labels.size))


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the values of a statistic (percentile bootstrap).

    Args:
        values: Values of the resampled statistic (n,). NaN, which a draw has that the statistic is not defined for,
            does not count.

    Returns:
        Lower and upper bound; NaN where every value is.
    """
    known = values[~np.isnan(values)]
    low, high = np.quantile(known, _LEVELS) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def rate_interval(values: NDArray[np.float64], units: int) -> tuple[float, float]:
    """Return the 95 % interval of a resampled rate between 0 and 1.

    Where every draw has the same rate, as with one group, or with every image right, the percentiles would say that the
    rate is certain. Then it is Wilson's interval.

    Args:
        values: Values of the resampled rate (n,).
        units: Number of images, or of groups where these are drawn.

    Returns:
        Lower and upper bound.
    """
    low, high = percentile_interval(values)
    if not high - low < 1e-9:
        return low, high
    wide = wilson(min(1.0, max(0.0, low)) * units, units)
    return min(low, wide[0]), max(high, wide[1])
