"""The page of an embedding: what a dot shows when it is pointed at or focused, and the page as Chromium draws it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.browsing import open_page
from helpers.drawn_page import page_faults
from vpt.analysis.embedding_page import write_page
from vpt.analysis.embeddings import EmbeddedFeatures, Embedding

CLASSES = ("<b>hostile</b> & a long name of a class", *"abcdefg")
# Of the card that is shown: its text, whether its image is drawn inside the window, and its distance from the dots.
CARD = """
const shown = [...document.querySelectorAll(".card")].filter(c => c.getClientRects().length);
return shown.map(card => [card.innerText, getComputedStyle(card.querySelector("i")).backgroundImage.slice(0, 27),
  card.getBoundingClientRect().right <= innerWidth, card.getBoundingClientRect().top -
  card.parentElement.getBoundingClientRect().bottom, card.scrollHeight - card.clientHeight]); """


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, labels = np.random.default_rng(0), np.arange(40) % len(CLASSES)
    sides = [EmbeddedFeatures(rng.normal(size=(40, 2)), 0.5) for _ in range(2)]
    predicted = tuple(CLASSES[k if i else 1] for i, k in enumerate(labels))
    names = tuple(f"folder of photos/{i:02}.jpg" for i in range(40))
    images = rng.integers(0, 255, (40, 96, 96, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("page") / "embedding.html"
    write_page(Embedding(names, labels, CLASSES, predicted, *sides, 13.0, 7, images), path)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_page_as_drawn_is_readable(browser: Any, page: Path, scheme: str, width: int) -> None:
    assert page_faults(browser, page.as_uri(), scheme, width) == []
    requests = [entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]]
    assert all("https:" not in message and "http:" not in message for message in requests)


@pytest.mark.parametrize("width", [360, 1440])
def test_dot_that_is_focused_or_pointed_at_shows_its_image(browser: Any, page: Path, width: int) -> None:
    from selenium.webdriver import ActionChains, Keys

    open_page(browser, page.as_uri(), "light", width)
    assert browser.title == "t-SNE, perplexity 13, seed 7, 40 images" and browser.execute_script(CARD) == []
    ActionChains(browser).send_keys(Keys.TAB, Keys.SPACE).perform()
    image = 'url("data:image/jpeg;base64'
    ((text, *drawn),) = browser.execute_script(CARD)
    assert text.split("\n") == ["folder of photos/08.jpg", f"label {CLASSES[0]}", f"predicted {CLASSES[0]}"]
    assert drawn[:2] == [image, True] and drawn[2] > 0 and drawn[3] <= 0
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.execute_script(outline) == "solid"
    ActionChains(browser).send_keys(*[Keys.ARROW_RIGHT] * 4).perform()  # the fifth of its class is predicted as a
    ((text, *_),) = browser.execute_script(CARD)
    assert text.split("\n") == ["folder of photos/00.jpg", f"label {CLASSES[0]}", "predicted a"]

    ActionChains(browser).send_keys(Keys.TAB, Keys.SPACE).perform()  # the other picture is one stop away
    assert len(browser.execute_script(CARD)) == 2
    dot = browser.find_element("css selector", "[aria-label^='folder of photos/05.jpg']")
    ActionChains(browser).move_to_element(dot).perform()
    assert "folder of photos/05.jpg" in {text.split("\n")[0] for text, *_ in browser.execute_script(CARD)}


def test_page_draws_a_shape_and_a_color_for_each_class_and_no_script(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "<b>hostile" not in text and "&lt;b&gt;hostile" in text
    assert text.count("data:image/jpeg;base64,") == 40 and "1 of 40 is predicted as" in text
    looks = [line for line in text.splitlines() if line.startswith(".k")]
    assert len({line.partition("{")[2] for line in looks}) == len(CLASSES)
    assert "--color: var(--ink)" in text  # the seventh color is ink, which the dark page inverts
