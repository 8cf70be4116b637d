"""The table of what a search tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vpt.cli.lines import echo_line

if TYPE_CHECKING:
    from rich.console import Console


def print_search(search: dict[str, Any], console: Console) -> None:
    """Print everything that a search tried, and the comparison with the probe in words.

    Args:
        search: The search, as in `RunResult.search`.
        console: The console.
    """
    from rich.table import Table

    from vpt.core.metrics import PLAIN_METRICS
    from vpt.core.text import describe_status, describe_trial, format_duration
    from vpt.search.metrics import describe_signed

    metric, is_plain = search["metric"], search["metric"] in PLAIN_METRICS
    columns = (metric, "squared error") if is_plain else (f"{metric}, %", "log loss")
    has_masks = metric == "miou"
    images = "images of val" if has_masks else "out of fold"
    rival = "the head alone" if has_masks and "lda" not in search["candidates"][0] else "the probe"
    tried = Table("tried", *columns, "seconds", "", title=images)
    for row in search["candidates"]:
        head = row.get("head", "")
        name = describe_trial(row["method"], row.get("factor", 1), row.get("start", ""), head if has_masks else "")
        if "lda" in row or (head and not has_masks):
            name = f"probe: {head if has_masks else _blocks(head)}"
        known, figures = "score" in row, ("", "")
        if known:
            score = f"{row['score']:.3g}" if is_plain else f"{100 * row['score']:.1f}"
            figures = (score, f"{row['log_loss']:.3g}" if is_plain else f"{row['log_loss']:.2f}")
        duration = format_duration(row["seconds"]) if "seconds" in row else ""
        note = "" if known else describe_status(row)
        if "comparison" in row:
            gain = describe_signed(metric, row["comparison"]["gain"])
            note = f"{gain} against {rival} on these {row['images']} images"
        tried.add_row(name, *figures, duration, note)
    console.print(tried)
    echo_line(search["summary"])


def _blocks(head: str) -> str:
    """Return the features that the head of a probe reads, in a few words."""
    from vpt.model.readout import MultiBlock
    from vpt.tasks.registry import TASKS

    readout = TASKS["classification"].parse_head(head)
    return f"{readout.blocks}, {readout.features}" if isinstance(readout, MultiBlock) else "pooled feature"
