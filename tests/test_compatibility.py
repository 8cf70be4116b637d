"""The script that runs the fast tier with the oldest and the newest packages."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "compatibility.py"))


def test_lower_bounds_hold_every_package_of_the_core() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = SCRIPT["lower_bounds"]()
    assert len(bounds) == len(project["dependencies"]) and "torch==2.6.*" in bounds


def test_count_tests_of_a_report_counts_each_test_once(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        "<testcase name='a'/><testcase name='b'/>"
        "<testcase name='c'><skipped type='pytest.skip'/></testcase>"
        "<testcase name='d'><failure/></testcase>"
        "<testcase name='e'><failure/><error/></testcase>"
        "</testsuite></testsuites>"
    )
    assert SCRIPT["count_tests"](report) == {"passed": 2, "failed": 2, "skipped": 1}
