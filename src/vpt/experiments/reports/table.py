"""Tables of text, written as Markdown, LaTeX, CSV or console output."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vpt.core.text import one_line, printable
from vpt.experiments.reports import latex

MISSING = "–"


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
        name: Stem of the files that the table is written to.
        title: Heading.
        header: Name of each column.
        rows: Cells, row by row.
        note: Text below the table; may be empty.
        num_text_columns: Number of leading columns that hold text; the other columns hold numbers.
        best_row: Index of the row to emphasize on a console; None emphasizes no row.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    num_text_columns: int = 1
    best_row: int | None = None


def format_percent(value: float | None, *, digits: int = 2, signed: bool = False) -> str:
    """Return a fraction as a percentage without the percent sign.

    Args:
        value: Fraction, 1.0 for 100 %; None gives the sign for a missing value.
        digits: Number of decimals. Default: 2.
        signed: Write a plus before positive values. Default: False.

    Returns:
        A fraction as a percentage without the percent sign.
    """
    return MISSING if value is None else f"{100 * value:{'+' if signed else ''}.{digits}f}"


def format_mean_std(mean: float | None, std: float | None, *, digits: int = 2) -> str:
    """Return "mean ± standard deviation" in percent.

    Args:
        mean: Mean as a fraction; None gives the sign for a missing value.
        std: Standard deviation as a fraction; None, as for a single run, leaves it out.
        digits: Number of decimals. Default: 2.

    Returns:
        "mean ± standard deviation" in percent.
    """
    text = format_percent(mean, digits=digits)
    return text if mean is None or std is None else f"{text} ± {format_percent(std, digits=digits)}"


def markdown_rows(table: Table) -> str:
    """Return the header and the rows of a table as Markdown, without title and note."""
    rule = [":--"] * table.num_text_columns + ["--:"] * (len(table.header) - table.num_text_columns)
    cells = ([printable(one_line(cell)).replace("|", "\\|") for cell in row] for row in (table.header, *table.rows))
    header, *rows = cells
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))


def to_markdown(table: Table) -> str:
    """Return a table as a Markdown section with its title and its note."""
    return f"## {table.title}\n\n{markdown_rows(table)}\n{table.note}\n"


def to_document(title: str, text: str, tables: Sequence[Table], facts: Iterable[tuple[str, str]]) -> str:
    """Return a Markdown document.

    Args:
        title: Heading of the document.
        text: Paragraph below the heading.
        tables: Tables, a section each.
        facts: Names and values of the last section.

    Returns:
        A Markdown document.
    """
    lines = "".join(f"- {name}: {one_line(value)}\n" for name, value in facts)
    return "\n".join([f"# {title}\n\n{text}\n", *map(to_markdown, tables), f"## Made with\n\n{lines}"])


def to_latex(table: Table) -> str:
    """Return a table as a LaTeX `tabular` in a `table`, with booktabs rules."""
    columns = "l" * table.num_text_columns + "r" * (len(table.header) - table.num_text_columns)
    first, *rest = (" & ".join(map(latex.escape, row)) + r" \\" for row in (table.header, *table.rows))
    body = "\n".join(rest)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{latex.escape(table.title)}. {latex.escape(table.note)}}}\n\\label{{tab:{table.name}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{first}\n\\midrule\n{body}\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a header and rows as CSV; None becomes an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
