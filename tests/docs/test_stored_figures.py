"""Figures between marks in the pages are those of the stored records."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from pages import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from report import RESULTS_DIR, format_provenance

PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARKED = re.compile(r"<!-- (\w+) -->\n(.*?)\n<!-- end of \1 -->", re.DOTALL)
BLOCKS = [
    (page, name, block)
    for page in PAGES
    for name, block in MARKED.findall(page.read_text(encoding="utf-8"))
    if (RESULTS_DIR / f"{name}.json").exists()
]


def record(name: str) -> tuple[str, ...]:
    """The tables of a record, the same with their provenance, and each section with its own."""
    sections = json.loads((RESULTS_DIR / f"{name}.json").read_text(encoding="utf-8")).values()
    tables = "\n\n".join(entry["table"] for entry in sections)
    texts = [f"{entry['table']}\n\n{format_provenance(entry)}" for entry in sections]
    return tables, "\n\n".join(texts), *texts


def test_pages_have_marked_figures() -> None:
    assert {"kills", "families", "attention", "serving"} <= {name for _, name, _ in BLOCKS}


@pytest.mark.parametrize(
    ("page", "name", "block"), BLOCKS, ids=[f"{page.relative_to(ROOT)}-{name}" for page, name, _ in BLOCKS]
)
def test_marked_figures_equal_their_record(page: Path, name: str, block: str) -> None:
    written_with = f"{page.name} differs from results/{name}.json; write both with benchmarks/{name}.py"
    assert block in record(name), written_with
    assert (RESULTS_DIR / f"{name}.md").read_text(encoding="utf-8").rstrip("\n") == record(name)[1], written_with
