"""The page of licenses names the packages of pyproject.toml."""

from __future__ import annotations

import runpy

from pages import ROOT


def test_licenses_page_lists_every_package_that_is_needed() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "licenses.py"))
    text = (ROOT / "docs" / "reference" / "licenses.md").read_text(encoding="utf-8")
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines()]
    table = {name: needed_by for name, needed_by, license in (row for row in rows if len(row) == 3) if license}
    expected = script["packages"]()
    assert {name: table.get(name) for name in expected} == expected
    assert table.keys() - expected.keys() == {"package", "---"}
