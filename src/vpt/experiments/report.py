"""The report of a comparison: report.html, report.md, and every table as CSV and LaTeX."""

from __future__ import annotations

from pathlib import Path

from vpt.core.io import write_atomic
from vpt.experiments.html_report import page
from vpt.experiments.results import outcome
from vpt.experiments.store import Store
from vpt.experiments.table_formats import comma_separated, document, latex
from vpt.experiments.tables import provenance, tables


def report(folder: Path, out: Path) -> list[Path]:
    """Write the report of `folder` to `out`; the files, the page first.

    A comparison that is not finished can be reported too: what is missing is said. Raises DataError where there is
    none.
    """
    found = outcome(Store(folder))
    all_tables, facts, title = tables(found), provenance(found), found.plan.name
    texts = {"report.html": page(title, found, all_tables, facts), "report.md": document(title, all_tables, facts)}
    for table in all_tables:
        texts[f"{table.name}.csv"] = comma_separated(table)
        texts[f"{table.name}.tex"] = latex(table)
    for name, text in texts.items():
        write_atomic(out / name, text.encode())
    return [out / name for name in texts]
