"""The report of a comparison: report.html, report.md, and every table as CSV and LaTeX."""

from __future__ import annotations

from pathlib import Path

from vpt.core.io import write_atomic
from vpt.experiments.html_report import render_page
from vpt.experiments.results import load_results
from vpt.experiments.store import Store
from vpt.experiments.table_formats import to_csv, to_document, to_latex
from vpt.experiments.tables import build_tables, provenance


def write_report(folder: Path, out: Path) -> list[Path]:
    """Write the report of `folder` to `out`; the files, the page first.

    A comparison that is not finished can be reported too: what is missing is said. Raises DataError where there is
    none.
    """
    found = load_results(Store(folder))
    all_tables, facts, title = build_tables(found), provenance(found), found.experiment.name
    texts = {
        "report.html": render_page(title, found, all_tables, facts),
        "report.md": to_document(title, all_tables, facts),
    }
    for table in all_tables:
        texts[f"{table.name}.csv"] = to_csv(table)
        texts[f"{table.name}.tex"] = to_latex(table)
    for name, text in texts.items():
        write_atomic(out / name, text.encode())
    return [out / name for name in texts]
