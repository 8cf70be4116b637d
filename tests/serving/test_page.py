"""The server's page as Chromium draws it: light and dark, narrow and wide, and by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.browsing import open_page
from helpers.drawn_page import shown_faults
from helpers.serving import running_server, wait_until
from vpt.data.masks.class_colors import class_colors
from vpt.serving.bank import Bank

ARTICLE = "return document.querySelector('article')?.dataset.done"


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with running_server(Bank([folder])) as found:
        yield found


@pytest.fixture(scope="module")
def files(pictures: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("images")
    pictures[0].save(root / "image.png")
    (root / "text.png").write_text("no image")
    return root / "image.png", root / "text.png"


def open_server(browser: Any, address: str, scheme: str, width: int) -> None:
    open_page(browser, address, scheme, width)
    wait_until(lambda: browser.execute_script("return document.querySelectorAll('#task option').length") == 8)


def ask(browser: Any, task: str, file: Path) -> str:
    browser.execute_script(
        "const s = document.getElementById('task'); s.value = arguments[0]; s.dispatchEvent(new Event('change'));", task
    )
    browser.execute_script("document.getElementById('predictions').replaceChildren()")
    browser.find_element("id", "images").send_keys(str(file))
    wait_until(lambda: browser.execute_script(ARTICLE) in ("yes", "no"))
    return str(browser.execute_script("return document.querySelector('article').innerText"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_page_as_drawn_is_readable(
    browser: Any, address: str, files: tuple[Path, Path], scheme: str, width: int
) -> None:
    open_server(browser, address, scheme, width)
    assert shown_faults(browser, width) == []  # before there is a prediction
    for task in ("plants", "scenes"):
        ask(browser, task, files[0])
        assert shown_faults(browser, width) == []
    swatches = browser.execute_script("return [...document.querySelectorAll('.swatch')].map(s => s.style.background)")
    assert set(swatches) <= {"rgb({}, {}, {})".format(*color) for color in class_colors(("sky", "road", "tree"))}
    assert swatches and len(browser.find_elements("css selector", ".bar")) == len(swatches)
    assert ask(browser, "plants", files[1]).startswith("text.png: the image is ")
    browser.get_log("browser")  # which has the refused request
    assert shown_faults(browser, width) == []


def test_page_by_keyboard_reaches_every_control(browser: Any, address: str) -> None:
    open_server(browser, address, "light", 1440)
    browser.execute_script("document.activeElement.blur()")
    reached = []
    for _ in range(3):
        browser.switch_to.active_element.send_keys("\ue004")  # Tab
        reached.append(browser.execute_script("return document.activeElement.id"))
    assert reached == ["filter", "task", "images"]
    outlines = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outlines != "none"
