"""Hooks of pytest: with the environment variable VPT_CI set, a skipped test fails.

Only the reasons that pip cannot change may skip there: a GPU, absent shared data, a registry of npm, and LaTeX.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator

import pytest

ALLOWED = re.compile(r"\bGPU\b|no real data|no npm registry|pdflatex is not installed")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module that skips itself."""
    report = yield
    _fail_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that is skipped by a mark, a fixture or itself."""
    report = yield
    _fail_skipped(report)
    return report


def _fail_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not os.environ.get("VPT_CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not ALLOWED.search(reason):
        report.outcome = "failed"
        report.longrepr = (
            f"{reason}\nVPT_CI is set, so only a GPU, shared data, npm or LaTeX may skip a test; install its needs"
        )
