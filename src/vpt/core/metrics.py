"""Metrics as text."""

from vpt.core.text import format_number

PLAIN_METRICS = frozenset(("r2", "mae"))  # which are no percentages


def format_metric(name: str, value: float) -> str:
    """Return a metric as text.

    Args:
        name: Name of the metric.
        value: Its value.

    Returns:
        A percentage or, of numbers that are predicted, the value.
    """
    return format_number(value) if name in PLAIN_METRICS else f"{100 * value:.2f} %"


def describe_signed(metric: str, gain: float) -> str:
    """Return a difference of a metric with its sign, such as "+2.3", which are points, or "+0.02".

    Args:
        metric: Name of the metric.
        gain: The difference.

    Returns:
        The text.
    """
    return f"{gain:+.3g}" if metric in PLAIN_METRICS else f"{100 * gain:+.1f}"
