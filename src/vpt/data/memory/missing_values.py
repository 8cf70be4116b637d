"""Missing values, as Python, NumPy and pandas write them."""

from typing import Any


def is_missing(value: Any) -> bool:
    """Return True for a missing value.

    Args:
        value: A Python value, or one of pandas.

    Returns:
        True for None, NaN and `pandas.NA`.
    """
    differs = value != value  # True for NaN; `pandas.NA` itself for `pandas.NA`, which has no truth value
    return value is None or differs is not False
