"""Rows of candidates, as JSON values: which is the best, which is trained again, and what to say of one."""

from typing import Any

from vpt.core.metrics import describe_signed
from vpt.search.comparison import Comparison
from vpt.search.metrics import describe_value
from vpt.search.status import Status
from vpt.tasks.search_rows import describe_status


def best_row(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the best of the candidates that were tried, or None where there is none.

    Those that convince come first, then those that gain most over the probe on their images: candidates that were tried
    on other images are comparable by nothing else. Of equals, the one whose log loss gains most is taken.

    Args:
        rows: Rows of the candidates.

    Returns:
        The row of the best.
    """

    def rank(row: dict[str, Any]) -> tuple[bool, float, float]:
        against = Comparison(**row["comparison"])
        return against.convinces, against.gain, against.loss_gain

    return max((row for row in rows if row["status"] == Status.TRIED), key=rank, default=None)


def row_to_refit(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the row of the candidate that is to be trained on all images so far, or None where the probe is kept.

    Args:
        rows: Rows of the candidates.

    Returns:
        The row.
    """
    best = best_row(rows)
    return best if best is not None and Comparison(**best["comparison"]).convinces else None


def describe_row(row: dict[str, Any]) -> str:
    """Return what became of a candidate in words.

    Args:
        row: Its row.

    Returns:
        Such as "91.0 % top-1 out of fold (+2.5 points against the probe on the same 200 images)", or what is in
        `describe_status` where it was not tried to its end.
    """
    if row["status"] != Status.TRIED:
        return describe_status(row)
    metric, gain = row["comparison"]["metric"], describe_signed(row["comparison"]["metric"], row["comparison"]["gain"])
    return f"{describe_value(metric, row['score'])} out of fold ({gain} against the probe on the same "\
           f"{row['images']} images)"  # fmt: skip
