"""The report in a real browser: headless Chromium, light and dark, wide and narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.drawn_page import page_faults
from vpt.experiments.reports.report import write_report
from vpt.experiments.store import Store


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 360])
def test_report_page_in_a_browser_is_readable(
    browser: Any, done: Store, tmp_path: Path, scheme: str, width: int
) -> None:
    page, *_ = write_report(done.folder, tmp_path)
    assert page_faults(browser, page.as_uri(), scheme, width) == []

    requests = [entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]]
    assert requests and all(
        "file://" in message and "http" not in message.partition('"url"')[2][:12] for message in requests
    )
    assert browser.execute_script("return document.querySelectorAll('svg').length") >= 2
