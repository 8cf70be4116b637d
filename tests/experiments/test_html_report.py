"""The report in a real browser: headless Chromium, light and dark, wide and narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.browsing import CONTRAST, open_page
from vpt.experiments.report import write_report
from vpt.experiments.store import Store

OUTSIDE = """
return [...document.querySelectorAll("svg")].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const b = text.getBoundingClientRect();
    return b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1 || b.bottom > box.bottom + 1;
  }).map(text => text.textContent); });
"""
OVERLAPS = """
return [...document.querySelectorAll("svg")].flatMap(svg => {
  const boxes = [...svg.querySelectorAll("text:not([transform])")].map(t => [t.textContent, t.getBoundingClientRect()]);
  return boxes.flatMap(([one, a], i) => boxes.slice(i + 1).filter(([_, b]) =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2)
    .map(([other, _]) => one + " / " + other)); });
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_report_page_in_a_browser_is_readable(
    browser: Any, done: Store, tmp_path: Path, scheme: str, width: int
) -> None:
    page, *_ = write_report(done.folder, tmp_path)
    open_page(browser, page.as_uri(), scheme, width)

    assert not browser.get_log("browser")
    requests = [entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]]
    assert requests and all(
        "file://" in message and "http" not in message.partition('"url"')[2][:12] for message in requests
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert min(browser.execute_script(CONTRAST)) >= 4.5
    assert browser.execute_script("return document.querySelectorAll('svg').length") >= 2
    assert browser.execute_script(OUTSIDE) == []
    assert browser.execute_script(OVERLAPS) == []
