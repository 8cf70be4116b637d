"""The bootstrap over images, or over groups of images."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 1000
_LEVELS = (0.025, 0.975)


def bootstrap(
    labels: NDArray[np.int64],
    statistic: Callable[[NDArray[np.int64]], Any],
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Return a statistic of resampled images.

    Args:
        labels: Class of each image (n,).
        statistic: Function of the weights of the images (n,), how often each was drawn, to a number or numbers (k,).
        seed: Seed of the draws. Default: 0.
        groups: Group of each image (n,); images of a group are drawn together. Default: every image is on its own.

    Returns:
        Its values (1000,) or (1000, k).
    """
    index = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    rng, n = np.random.default_rng(seed), int(index.max()) + 1
    draws = (np.bincount(rng.integers(n, size=n), minlength=n)[index] for _ in range(_RESAMPLES))
    return np.array([statistic(weights) for weights in draws])


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the values of a statistic (percentile bootstrap).

    Args:
        values: Values of the resampled statistic (n,).

    Returns:
        Lower and upper bound.
    """
    low, high = np.quantile(values, _LEVELS)
    return float(low), float(high)
