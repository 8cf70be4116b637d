"""Links between the pages of the repository lead somewhere, and the first code of the README comes early."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import PAGES, ROOT, blocks

TEXTS = [
    *PAGES,
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "llms.txt", "benchmarks/README.md")),
]
_LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)\s#]*)(?:#(?P<anchor>[^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_links_lead_to_files_and_headings(page: Path) -> None:
    for link in _LINK.finditer(page.read_text(encoding="utf-8")):
        target = Path(os.path.normpath(page.parent / link["path"])) if link["path"] else page
        assert target.exists(), f"{link[0]} leads nowhere"
        if link["anchor"] and target.suffix == ".md":
            assert link["anchor"] in anchors(target), f"{target.name} has no heading for {link[0]}"


def test_every_page_is_in_llms_txt_or_an_index() -> None:
    listed = (ROOT / "llms.txt").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        name = page.relative_to(ROOT).as_posix()
        assert page.name == "index.md" or name in listed or page.stem in ("faq", "embedded-backbone"), (
            f"{name}: not listed"
        )


def test_readme_first_code_is_at_line_15_or_before() -> None:
    assert blocks(ROOT / "README.md")[0].line <= 14


def test_prose_lines_wrap_at_120() -> None:
    for page in TEXTS[:-1]:  # scripts write lines of the last one
        fenced = written = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            fenced ^= line.startswith("```")
            if line.startswith("<!-- "):  # what a script writes is between the marks NAME and end of NAME
                written = bool(re.fullmatch(r"<!-- \w+ -->", line))
            if not fenced and not written and not line.startswith(("|", "!")) and "](" not in line:
                assert len(line) <= 120, f"{page.name}:{number} has {len(line)} characters"


def _list_items(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Yield the items of lists outside code: the line number, the line above, and the text."""
    fenced, above, start, text = False, "", 0, ""
    for number, line in enumerate([*lines, ""], 1):
        marked = not fenced and re.match(r" *([-*+]|\d+[.)]) ", line)
        fenced ^= line.lstrip().startswith("```")
        if text and (marked or fenced or not line.strip()):
            yield start, above, text
            above, text = ("" if marked else line), ""  # the next item continues the list
        if marked:
            start, text = number, line
        elif text:
            text += f" {line}"
        else:
            above = line


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_wrapped_line_becomes_a_list_item_by_accident(page: Path) -> None:
    for number, above, text in _list_items(page.read_text(encoding="utf-8").splitlines()):
        assert not above.strip(), f"{page.name}:{number} begins a list within a paragraph: {text[:40]!r}"
        balanced = text.count("(") == text.count(")") and text.count("`") % 2 == 0
        assert balanced, f"{page.name}:{number} ends within parentheses or code: {text[-40:]!r}"
