"""Tables on the terminal."""

from typing import Literal

import click
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from vpt.experiments.reports.table import Table, markdown_rows


def to_console(table: Table) -> RichTable:
    """Return a table for `rich.console.Console.print`."""
    drawn = RichTable(title=Text(table.title), title_justify="left")
    for index, name in enumerate(table.header):
        justify: Literal["left", "right"] = "left" if index < table.num_text_columns else "right"
        drawn.add_column(Text(name), justify=justify, overflow="fold")  # or long words would lose their ends
    for index, row in enumerate(table.rows):
        drawn.add_row(*map(Text, row), style="bold" if index == table.best_row else None)
    return drawn


def print_table(table: Table) -> None:
    """Print a table on a terminal, and its header and rows as Markdown elsewhere."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(to_console(table))
    else:
        click.echo(markdown_rows(table), nl=False)
