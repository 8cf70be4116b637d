"""The report of an experiment: report.html, report.md, and every table as CSV and LaTeX."""

from __future__ import annotations

from pathlib import Path

from vpt.core.io import write_atomic
from vpt.experiments.html_report import render_page
from vpt.experiments.provenance import PROTOCOL_DESCRIPTION, provenance
from vpt.experiments.results import load_results
from vpt.experiments.store import Store
from vpt.experiments.table import to_csv, to_document, to_latex
from vpt.experiments.tables import build_tables


def write_report(folder: Path, out: Path) -> list[Path]:
    """Write the report of an experiment, finished or not.

    Args:
        folder: Folder of the experiment.
        out: Folder of the report.

    Returns:
        The files that were written, report.html first.

    Raises:
        DataError: `folder` holds no experiment.
    """
    results = load_results(Store(folder))
    tables, facts, title = build_tables(results), provenance(results), results.experiment.name
    texts = {
        "report.html": render_page(title, results, tables, facts),
        "report.md": to_document(title, PROTOCOL_DESCRIPTION, tables, facts),
    }
    for table in tables:
        texts[f"{table.name}.csv"] = to_csv(table.header, table.rows)
        texts[f"{table.name}.tex"] = to_latex(table)
    for name, text in texts.items():
        write_atomic(out / name, text.encode())
    return [out / name for name in texts]
