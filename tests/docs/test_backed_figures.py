"""Every measured figure in README and docs is made from a stored record."""

from __future__ import annotations

import re

import pytest
from backed_figures import CONSTANTS, quotations
from pages import PAGES, ROOT

QUOTED = list(quotations())
# A number with a unit, a spread, or a cell of a table with decimals.
FIGURE = re.compile(
    r"(?<![\w.])[-+]?\d[\d.,]*\s?(?:%|MB|GB|GiB|kB|M\b|times|points|ms\b|s\b|seconds|minutes|hours|images/s)"
    r"|±|\|\s*[-+]?\d+\.\d+"
)
GENERATED = ("licenses.md", "renames.md")


def text_of(name: str) -> str:
    """The text of a page on one line, without its code, and without what is written and tested between marks."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return " ".join(re.sub(r"<!-- (\w+) -->\n.*?<!-- end of \1 -->", "", text, flags=re.DOTALL).split())


@pytest.mark.parametrize(("page", "text"), QUOTED, ids=[f"{page}-{i}" for i, (page, _) in enumerate(QUOTED)])
def test_figures_of_a_page_equal_their_record(page: str, text: str) -> None:
    assert text in text_of(page)


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES if page.name not in GENERATED])
def test_page_without_its_quotations_has_no_figure(page: str) -> None:
    text = text_of(page)
    for quoted in [*(each for name, each in QUOTED if name == page), *CONSTANTS.get(page, ())]:
        assert quoted in text, f"{page} has no longer {quoted!r}"
        text = text.replace(quoted, "")
    found = [text[max(0, match.start() - 60) : match.end() + 20] for match in FIGURE.finditer(text)]
    assert not found, "make these figures from a record in backed_figures.py, or say there why they are none"


def test_figure_without_a_record_is_found() -> None:
    for text in ("it is 2.5 times faster", "takes 3 s", "86.4 ± 0.1", "| full | 93.4 |", "above 90 % of"):
        assert FIGURE.search(text), text
    for text in ("version 2.15", "ViT-S/16 at 224 px", "lr 0.5", "`--ema 0.99`", "seeds 0 to 5"):
        assert not FIGURE.search(text), text
