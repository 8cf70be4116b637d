"""Text of durations and sizes."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Return a duration such as "42 s", "3 min 5 s" or "2 h 10 min".

    Args:
        seconds: The duration.

    Returns:
        The text.
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_bytes(count: float) -> str:
    """Return a size such as "812 B", "96.4 kB" or "1.2 MB".

    Args:
        count: Number of bytes.

    Returns:
        The text.
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
