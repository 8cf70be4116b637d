"""Every code block of README and docs runs, or says why it cannot."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from pages import CODE, PAGES, REASONS, ROOT, TEXT, blocks
from running import Session

WITH_CODE = [page for page in PAGES if any(block.language in CODE for block in blocks(page))]
_NEEDED = "photos.safetensors"  # made once for the pages that use it and do not make it


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_blocks_run_as_shown(
    page: Path, workspace: Path, session: Session, request: pytest.FixtureRequest
) -> None:
    text = page.read_text(encoding="utf-8")
    if _NEEDED in text and not re.search(rf'--out {_NEEDED}|out="{_NEEDED}"', text):
        shutil.copytree(request.getfixturevalue("tuned"), workspace, dirs_exist_ok=True)
    for block in blocks(page):
        if block.language in CODE and block.not_run is None:
            session.run(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_blocks_are_of_known_kinds(page: Path) -> None:
    for block in blocks(page):
        assert block.language in CODE + TEXT, f"{block.where}: no test knows {block.language!r}"
        assert block.not_run in (None, *REASONS), f"{block.where}: {block.not_run!r} is no reason"
        commands = re.findall(r"^(?:\$|vpt|pip|python) .*", block.source, re.MULTILINE)
        assert block.language in CODE or not commands, f"{block.where}: commands belong into a console block"


def test_not_run_marks_of_all_pages_are_at_most_one_in_ten() -> None:
    code = [block for page in PAGES for block in blocks(page) if block.language in CODE]
    marked = [block.where for block in code if block.not_run is not None]
    assert len(marked) <= len(code) / 10, f"{len(marked)} of {len(code)} blocks are not run: {', '.join(marked)}"
