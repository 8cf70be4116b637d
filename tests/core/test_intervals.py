"""Intervals of rates against published values."""

from __future__ import annotations

import math

import pytest

from vpt.core.intervals import difference_interval, wilson


def test_wilson_interval_equals_published_values() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe, 1998, method 3
    assert wilson(0, 20)[0] == wilson(0, 3)[0] == 0 and wilson(20, 20)[1] == 1


def test_difference_interval_equals_published_values() -> None:
    # Newcombe, 1998, table II, method 10
    assert difference_interval(56 / 70, 70, 48 / 80, 80) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert difference_interval(9 / 10, 10, 3 / 10, 10) == pytest.approx((0.1705, 0.8090), abs=1e-4)
    assert difference_interval(10 / 10, 10, 0 / 20, 20) == pytest.approx((0.6791, 1.0), abs=1e-4)


def test_difference_interval_counts_the_successes_of_a_rounded_rate() -> None:
    rate, (low, high), (other_low, other_high) = 15 / 22, wilson(15, 22), wilson(10, 20)
    assert rate * 22 < 15
    expected = math.hypot(rate - low, other_high - 0.5), math.hypot(high - rate, 0.5 - other_low)
    found = difference_interval(rate, 22, 0.5, 20)
    assert (rate - 0.5 - found[0], found[1] - rate + 0.5) == pytest.approx(expected)
