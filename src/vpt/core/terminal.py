"""Lines for people on a terminal, broken between words; files and pipes get them whole."""

import os
import re
import shutil
import textwrap
from typing import TextIO

_UNIT = re.compile(r"(?<=\d) (?=(?:%|[kMG]?B|s|min|px)(?!\w))")  # a number and its unit stay together
_LABEL = re.compile(r" *(?:\S(?:(?!  ).)* {2,})?")  # up to the second column


def has_width(stream: TextIO) -> bool:
    """Return whether lines on a stream have a width that they must fit: of a terminal, or of the variable COLUMNS."""
    return stream.isatty() or "COLUMNS" in os.environ


def fit_width(text: str, stream: TextIO) -> str:
    """Return lines that fit the width of a stream, if it has one. What follows stands below the second column.

    Args:
        text: One or several lines.
        stream: Where they are printed.

    Returns:
        The lines. A word that is wider stays whole.
    """
    if not has_width(stream):
        return text
    return "\n".join(_break_line(line, shutil.get_terminal_size().columns) for line in text.split("\n"))


def _break_line(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    found = _LABEL.match(line)
    indent = len(found.group()) if found else 0
    if indent > width // 2:  # no room for columns
        line, indent = line.strip(), 0
    parts = textwrap.wrap(
        _UNIT.sub("\N{NO-BREAK SPACE}", line[indent:]),
        width,
        initial_indent=line[:indent],
        subsequent_indent=" " * (indent or 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(parts).replace("\N{NO-BREAK SPACE}", " ")
