"""Tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from vpt.experiments.tables import PROTOCOL_DESCRIPTION, Table

_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "<": r"$<$", ">": r"$>$",
    "|": r"\textbar{}", "×": r"$\times$", '"': "''",
}  # fmt: skip


def to_markdown(table: Table) -> str:
    """A section with one table."""
    rule = [":--"] * table.num_text_columns + ["--:"] * (len(table.header) - table.num_text_columns)
    cells = [[_one_line(cell).replace("|", "\\|") for cell in row] for row in (table.header, *table.rows)]
    lines = "".join(f"| {' | '.join(row)} |\n" for row in (cells[0], rule, *cells[1:]))
    return f"## {table.title}\n\n{lines}\n{table.note}\n"


def to_document(title: str, tables: Sequence[Table], provenance: Sequence[tuple[str, str]]) -> str:
    """The whole report as Markdown."""
    facts = "".join(f"- {name}: {_one_line(value)}\n" for name, value in provenance)
    return "\n".join([f"# {title}\n\n{PROTOCOL_DESCRIPTION}\n", *map(to_markdown, tables), f"## Made with\n\n{facts}"])


def to_latex(table: Table) -> str:
    """A `tabular` in a `table`, with booktabs rules."""
    columns = "l" * table.num_text_columns + "r" * (len(table.header) - table.num_text_columns)
    first, *rest = (" & ".join(map(_escape_latex, row)) + r" \\" for row in (table.header, *table.rows))
    body = "\n".join(rest)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_escape_latex(table.title)}. {_escape_latex(table.note)}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{first}\n\\midrule\n{body}\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def to_csv(table: Table) -> str:
    """The cells as they stand."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.header, *table.rows])
    return text.getvalue()


def _escape_latex(text: str) -> str:
    return "".join(_LATEX_ESCAPES.get(character, character) for character in _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())
