"""An HTML page as headless Chromium draws it: what a reader cannot see, read or reach by keyboard."""

from __future__ import annotations

import io
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from helpers.browsing import open_page

SMALLEST, LEAST_CONTRAST = 12, 4.5  # pixels; WCAG 2.1, level AA

# Of every element with text of its own: the text, its size in pixels, and its contrast with the paper beneath it.
TEXTS = """
const parse = text => { const v = text.match(/[\\d.e-]+/g).map(Number);
  const scale = text.startsWith("color(") ? 255 : 1; return [...v.slice(0, 3).map(c => c * scale), v[3] ?? 1]; };
const over = (top, under) => [...top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3])), 1];
const light = color => { const c = color.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
const paper = element => { const layers = [];
  for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]); };
return [...document.querySelectorAll("body *")].filter(e => !["SCRIPT", "STYLE", "OPTION"].includes(e.tagName) &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && e.getClientRects().length).map(e => {
  const style = getComputedStyle(e), svg = e.closest("svg");
  const zoom = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
  const under = paper(e), ink = over(parse(svg ? style.fill : style.color), under);
  const [low, high] = [light(under), light(ink)].sort((a, b) => a - b);
  return [e.textContent.trim().slice(0, 60), parseFloat(style.fontSize) * zoom, (high + 0.05) / (low + 0.05)]; });
"""
# Of every bar: its value in percent, and its drawn width in percent of its track.
BARS = """
return [...document.querySelectorAll(".bar")].map(bar => {
  const track = bar.parentElement, style = getComputedStyle(track);
  const room = track.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  return [Number(bar.dataset.value), 100 * bar.getBoundingClientRect().width / room]; });
"""
# Text of charts outside of its chart, or on other text of it.
CHARTS = """
return [...document.querySelectorAll("svg")].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  const outside = texts.filter(([_, b]) => b.left < frame.left - 1 || b.right > frame.right + 1 ||
    b.top < frame.top - 1 || b.bottom > frame.bottom + 1).map(([text]) => `${text} is cut off`);
  const hidden = texts.flatMap(([one, a], i) => texts.slice(i + 1).filter(([_, b]) => a.left < b.right - 1 &&
    b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2).map(([other]) => `${one} lies on ${other}`));
  return [...outside, ...hidden]; });
"""

# What Tab should reach: each control that is shown, of a group of radio buttons one, and each region that scrolls.
CONTROLS = """
const kinds = "a[href], button, input, select, textarea, summary, [tabindex='0'], .scroll";
const all = [...document.querySelectorAll(kinds)];
const group = e => e.type === "radio" ? all.find(o => o.type === "radio" && o.name === e.name &&
  (o.checked || ![...document.getElementsByName(e.name)].some(r => r.checked))) : e;
window.controls = all.filter(e => e.getClientRects().length && !e.disabled && group(e) === e);
return controls.map(e => e.id || e.ariaLabel || e.outerHTML.slice(0, 80)); """
FOCUSED = """
const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
return [controls.indexOf(e), style.outlineStyle !== "none" || style.boxShadow !== "none",
  box.bottom > 0 && box.top < innerHeight]; """


def page_faults(browser: Any, address: str, scheme: str, width: int) -> list[str]:
    """Open a page, and name everything that a reader cannot see, read or reach."""
    open_page(browser, address, scheme, width)
    return shown_faults(browser, width)


def shown_faults(browser: Any, width: int) -> list[str]:
    """Name the faults of the page that is shown."""
    found = [f"the browser says: {entry['message']}" for entry in browser.get_log("browser")]
    drawn = browser.execute_script("return document.documentElement.scrollWidth")
    if drawn > width:
        found.append(f"the page is {drawn} px wide in a window of {width}")
    for text, size, contrast in browser.execute_script(TEXTS):
        if size < SMALLEST - 0.01:
            found.append(f"{text!r} has {size:.1f} px")
        if contrast < LEAST_CONTRAST:
            found.append(f"{text!r} has a contrast of {contrast:.2f}")
    for value, share in browser.execute_script(BARS):
        if abs(value - share) > 1:
            found.append(f"a bar of {value:.1f} % is drawn {share:.1f} % wide")
    for value, share in progress_shares(browser):
        if abs(value - share) > 1:
            found.append(f"a progress of {value:.1f} % is drawn {share:.1f} % wide")
    found += browser.execute_script(CHARTS)
    browser.execute_script(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found += keyboard_faults(browser)
    violations = browser.execute_async_script("axe.run().then(arguments[0])")["violations"]
    for violation in violations:
        if violation["impact"] in ("serious", "critical"):
            nodes = [node["html"][:120] for node in violation["nodes"][:3]]
            found.append(f"axe: {violation['id']}: {violation['help']}: {nodes}")
    return found


def progress_shares(browser: Any) -> list[tuple[float, float]]:
    """Of every <progress>, its value in percent, and how much of it has the color of its left end, as it is drawn."""
    shares = []
    for element in browser.find_elements("css selector", "progress"):
        pixels = np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB"), dtype=int)
        middle = pixels[len(pixels) // 2, 2:-2]  # without the frame
        drawn = np.abs(middle - middle[1]).sum(-1) < 30
        position = browser.execute_script("return arguments[0].position", element)
        shares.append((100 * position, 100 * float(np.mean(drawn)) if position else 0.0))
    return shares


def keyboard_faults(browser: Any) -> list[str]:
    """Press Tab until it has been everywhere, and name controls that it does not reach, or whose focus is not shown."""
    from selenium.webdriver import ActionChains, Keys

    controls, reached, found = browser.execute_script(CONTROLS), set(), []
    for _ in range(2 * len(controls) + 2):  # from wherever the focus is, past the end, to the start
        ActionChains(browser, duration=0).send_keys(Keys.TAB).perform()
        index, is_marked, is_shown = browser.execute_script(FOCUSED)
        if index >= 0 and index not in reached:
            reached.add(index)
            found += [] if is_marked else [f"the focus on {controls[index]} is not marked"]
            found += [] if is_shown else [f"the focus on {controls[index]} is outside of the window"]
        if len(reached) == len(controls):
            return found
    return found + [f"Tab does not reach {name}" for index, name in enumerate(controls) if index not in reached]
