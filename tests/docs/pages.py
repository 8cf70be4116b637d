"""The pages of the documentation, and the code blocks in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sybil import Document, Region
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

ROOT = Path(__file__).parents[2]
_BUILT = {"_build", "repository"}  # what a build of the site makes
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if not _BUILT & set(p.parts))]
CODE = ("python", "console", "toml", "json")  # what a test runs or reads
TEXT = ("text", "bibtex", "")  # what a person reads
REASONS = ("network", "gpu", "cluster")

_FENCE = RawFencedCodeBlockLexer(re.compile(r"(?P<language>[^\n]*)$\n", re.MULTILINE))
_MARK = re.compile(r"<!-- not run: (?P<reason>[^>]*?) -->[ \t]*\n[ \t]*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Args:
        page: File that holds the block.
        line: Line of its fence, from 1.
        language: Word behind the fence, "" if there is none.
        source: Its text.
        not_run: Reason for which no test runs it, None if a test does.
    """

    page: Path
    line: int
    language: str
    source: str
    not_run: str | None

    @property
    def where(self) -> str:
        """File and line, as editors open them."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _regions(document: Document) -> Iterator[Region]:
    for region in _FENCE(document):
        if not region.lexemes["language"].startswith("{"):  # a directive of the page, not code
            yield region


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page in their order."""
    document = Document.parse(str(page), _regions)
    found = []
    for example in document:
        mark = _MARK.search(document.text[: example.region.start])
        source = str(example.region.lexemes["source"])
        language = example.region.lexemes["language"].strip()
        found.append(Block(page, example.line, language, source, mark and mark["reason"]))
    return found
