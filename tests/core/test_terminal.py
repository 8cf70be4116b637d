"""Lines that fit the terminal: broken between words, below the second column, and whole in pipes."""

from __future__ import annotations

import io

import pytest

from vpt.core.terminal import fit_width

LINE = "time      16 s of training, peak memory of the process 907.0 MB"


def test_fit_width_of_a_pipe_leaves_lines_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert fit_width(LINE, io.StringIO()) == LINE


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        (LINE, 200, LINE),
        (LINE, 50, "time      16 s of training, peak memory of the\n          process 907.0 MB"),
        ("file      a 907.0 MB", 17, "file      a\n  907.0 MB"),
        ("sum       of 907.0 MB", 20, "sum       of\n          907.0 MB"),  # a unit stays with its number
        ("print     " + 60 * "a", 40, "print     " + 60 * "a"),  # a word that is wider stays whole
        ("one two three\nfour five six", 8, "one two\n  three\nfour\n  five\n  six"),
        ("a b", 1, "a\n  b"),
    ],
)
def test_fit_width_of_a_terminal_breaks_lines(
    text: str, columns: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert fit_width(text, io.StringIO()) == expected
