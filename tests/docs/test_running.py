"""The harness itself: a page that shows something wrong must fail."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pages import ROOT, Block, blocks
from running import Session, WrongPageError, commands, statements


def block(language: str, source: str) -> Block:
    """A block of a page that is not there."""
    return Block(ROOT / "README.md", 1, language, source, None)


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("python", "print(1 + 1)  # 3\n"),
        ("python", "print(1)\n# 1\n# 2\n"),
        ("python", "1 / 0\n"),
        ("console", "$ vpt --version\nvpt, version of another day\n"),
        ("console", "$ vpt frobnicate\n"),
        ("console", "$ vpt frobnicate\nError: there is no fault\n"),
        ("console", "vpt --version\n"),
        ("toml", "key = \n"),
    ],
)
def test_session_wrong_block_fails(language: str, source: str) -> None:
    with pytest.raises((WrongPageError, ValueError)):
        Session(8000).run(block(language, source))


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("python", "print(1 + 1)  # 2\nprint('a\\nb')\n# a\n# b\nx = 3  # not an output\n"),
        ("python", "print(2 / 3)  # 0.66...\n"),
        ("console", '$ vpt --version\nvpt, version 0...\n$ echo "$((1 + 1))" | cat\n2\n'),
        ("console", "$ vpt frobnicate\n...Error: there is no command 'frobnicate'...\n$ echo $?\n2\n"),
        ("toml", "key = 1\n"),
    ],
)
def test_session_right_block_passes(language: str, source: str) -> None:
    Session(8000).run(block(language, source))


def test_session_named_block_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Session(8000).run(block("python", "# file: plugin/mine.py\nraise ValueError\n"))
    assert Path("plugin/mine.py").read_text(encoding="utf-8") == "raise ValueError\n"


def test_session_redirected_output_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Session(8000).run(block("console", "$ vpt --version > version.txt\n$ cat version.txt\nvpt, version 0...\n"))
    assert Path("version.txt").read_text(encoding="utf-8").startswith("vpt, version")


def test_commands_continued_line_is_one_command() -> None:
    assert commands("$ vpt tune a \\\n  --seed 1\ndone\n$ ls\n") == [("vpt tune a    --seed 1", "done\n"), ("ls", "")]


def test_statements_comments_of_print_are_output() -> None:
    source = "x = 1  # no output\nprint(x)  # 1\nprint(\n    x\n)\n# 1\n\n# a remark\nprint(x)\n"
    found = [(type(statement), expected) for statement, expected in statements(source)]
    assert found == [(ast.Assign, ""), (ast.Expr, "1\n"), (ast.Expr, "1\n"), (ast.Expr, "")]


def test_blocks_with_a_mark_give_the_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n\n<!-- not run: gpu -->\n```console\n$ vpt\n```\n\n```python\n1\n```\n", encoding="utf-8")
    assert [(b.language, b.not_run, b.line) for b in blocks(page)] == [("console", "gpu", 4), ("python", None, 8)]
