"""Looking at pages in headless Chromium: light and dark, wide and narrow."""

from __future__ import annotations

from typing import Any

# Contrast as WCAG 2 has it, between the text of an element and the page.
CONTRAST = """
const light = text => { const c = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
const page = light(getComputedStyle(document.body).backgroundColor);
return [...document.querySelectorAll("h1, h2, h3, td, th, p, dt, dd, svg text")].map(e => {
  const style = getComputedStyle(e), ink = light(e.tagName == "text" ? style.fill : style.color);
  return (Math.max(page, ink) + 0.05) / (Math.min(page, ink) + 0.05); });
"""


def open_page(browser: Any, address: str, scheme: str, width: int) -> None:
    """Open a page as the screen of a reader shows it, in `scheme` "light" or "dark"."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for log in ("browser", "performance"):  # of pages before
        browser.get_log(log)
    browser.get(address)
    bright = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (bright == "rgb(255, 255, 255)") == (scheme == "light")
