"""Intervals of rates: fractions of images that are classified correctly."""

import math

_Z = 1.959963984540054  # quantile .975 of the standard normal distribution


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a probability.

    Args:
        successes: Number of successes; a fraction for the mean of rates.
        trials: Number of trials, at least 1.

    Returns:
        Lower and upper bound.
    """
    rate, squared = successes / trials, _Z * _Z
    center = rate + squared / (2 * trials)
    half = _Z * math.sqrt(rate * (1 - rate) / trials + squared / (4 * trials * trials))
    low, high = ((center + sign * half) / (1 + squared / trials) for sign in (-1, 1))
    return (0.0 if rate == 0 else low), (1.0 if rate == 1 else high)


def difference_interval(rate: float, trials: int, other_rate: float, other_trials: int) -> tuple[float, float]:
    """Return the joint 95 % interval of the difference of two rates on different images (Newcombe, 1998, method 10).

    Args:
        rate: Fraction of successes, between 0 and 1.
        trials: Number of trials, at least 1.
        other_rate: Fraction of successes that is subtracted.
        other_trials: Number of its trials, at least 1.

    Returns:
        Lower and upper bound.
    """
    low, high = wilson(round(rate * trials), trials)
    other_low, other_high = wilson(round(other_rate * other_trials), other_trials)
    difference = rate - other_rate
    return (
        difference - math.hypot(rate - low, other_high - other_rate),
        difference + math.hypot(high - rate, other_rate - other_low),
    )
