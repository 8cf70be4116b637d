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

    from vpt.tasks.search_rows import search_table

    found = search_table(search)
    tried = Table(*found.columns, title=found.title)
    for row in found.rows:
        tried.add_row(*row)
    console.print(tried)
    echo_line(search["summary"])
