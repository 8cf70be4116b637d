"""The candidates of a search as rows of text, for the terminal and for the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vpt.core.metrics import PLAIN_METRICS, describe_signed
from vpt.core.text import format_duration
from vpt.model.readout import MultiBlock, parse_readout


@dataclass(frozen=True)
class SearchTable:
    """What a search tried.

    Attributes:
        title: Images that the scores are of.
        columns: Headings of the columns.
        rows: A row of text for each candidate.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def search_table(search: Mapping[str, Any]) -> SearchTable:
    """Return the table of everything that a search tried.

    Args:
        search: The search, as in `RunResult.search`.

    Returns:
        Name, score, loss and time of each candidate, and what became of it.
    """
    metric = search["metric"]
    is_plain, has_masks = metric in PLAIN_METRICS, metric == "miou"
    figures = (metric, "squared error") if is_plain else (f"{metric}, %", "log loss")
    rival = "the head alone" if has_masks and "lda" not in search["candidates"][0] else "the probe"
    rows = []
    for row in search["candidates"]:
        score, loss, note = "", "", describe_status(row)
        if "score" in row:
            score = f"{row['score']:.3g}" if is_plain else f"{100 * row['score']:.1f}"
            loss, note = f"{row['log_loss']:.3g}" if is_plain else f"{row['log_loss']:.2f}", ""
        if "comparison" in row:
            gain = describe_signed(metric, row["comparison"]["gain"])
            note = f"{gain} against {rival} on these {row['images']} images"
        duration = format_duration(row["seconds"]) if "seconds" in row else ""
        rows.append((_name(row, has_masks), score, loss, duration, note))
    return SearchTable(
        "images of val" if has_masks else "out of fold", ("tried", *figures, "time", "result"), tuple(rows)
    )


def describe_trial(method: str, factor: float = 1.0, start: str = "", head: str = "") -> str:
    """Return the name of a method that trains in another way than usual.

    Args:
        method: Text of the method.
        factor: Factor of its usual rate. Default: 1.
        start: "probe" for a head that starts as a linear probe. Default: a head that starts at random.
        head: Text of the head. Default: the one of the search.

    Returns:
        Such as "vpt, rate x 3" or "vpt, from a linear probe"; the method alone where nothing is unusual.
    """
    rate = "" if factor == 1 else f", rate x {factor:.3g}"
    return f"{method}{', from a linear probe' if start else ''}{f', head {head}' if head else ''}{rate}"


def describe_status(row: Mapping[str, Any]) -> str:
    """Return what became of a candidate of a search.

    Args:
        row: Its "status", and the "reason" for it, if there is one.

    Returns:
        Such as "tried" or "no time: needs 3 min, 2 min are left".
    """
    status = str(row["status"]).replace("_", " ")
    return f"{status}: {row['reason']}" if row.get("reason") else status


def _name(row: Mapping[str, Any], has_masks: bool) -> str:
    """Return the name of a candidate; a probe is named by the features that its head reads."""
    head = row.get("head", "")
    if "lda" in row:
        return f"probe: {head}"
    if head and not has_masks:
        readout = parse_readout(head)
        return (
            f"probe: {readout.blocks}, {readout.features}"
            if isinstance(readout, MultiBlock)
            else "probe: pooled feature"
        )
    return describe_trial(row["method"], row.get("factor", 1), row.get("start", ""), head)
