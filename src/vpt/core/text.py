"""Wording: lists that name the first few items, counts, numbers, durations, sizes, and flat TOML."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vpt.errors import DataError, VptError
from vpt.errors import printable as printable

MAX_LISTED = 20  # faults that one error names
_MAX_KNOWN_NAMES = 100  # names in a hint


def comma_list(items: Sequence[str], limit: int = 5) -> str:
    """Return items joined by commas, such as "a, b, c and 12 more".

    Args:
        items: The items. A line end or another control character in a name from a disk is written as an escape.
        limit: Maximum number of items to name. Default: 5.

    Returns:
        One line of text.
    """
    more = len(items) - limit
    return ", ".join(map(printable, items[:limit])) + (f" and {more} more" if more > 0 else "")


def bullets(items: Sequence[str], limit: int = MAX_LISTED) -> str:
    """Return items as an indented list, one item per line.

    Args:
        items: The items.
        limit: Maximum number of items to name. Default: 20.

    Returns:
        Text that starts with a line break, or the empty string if there are no items.
    """
    more = len(items) - limit
    return "".join(f"\n  {item}" for item in items[:limit]) + (f"\n  and {more} more" if more > 0 else "")


def refuse(
    faults: Sequence[str], subject: str, advice: str = "", *, limit: int = MAX_LISTED, error: type[VptError] = DataError
) -> None:
    """Raise an error that lists faults, if there are any.

    Args:
        faults: The faults.
        subject: What is wrong, before the list.
        advice: What to do, after the list. Default: nothing.
        limit: Maximum number of faults to list. Default: 20.
        error: Class of the error. Default: `DataError`.

    Raises:
        error: There are faults.
    """
    if faults:
        raise error(f"{subject}:{bullets(faults, limit)}" + (f"\n{advice}" if advice else ""))


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun, such as "1 image" or "3 images".

    Args:
        count: The count.
        noun: The singular noun.

    Returns:
        The count and the noun.
    """
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count} {noun if count == 1 else plural}"


def describe_counts(counts: Mapping[str, int], unit: str = "image") -> list[str]:
    """Return the number of images of each class, such as "'cat' (3 images)".

    Args:
        counts: Class name to number of images.
        unit: What is counted. Default: "image".

    Returns:
        One text per class.
    """
    return [f"{name!r} ({pluralize(count, unit)})" for name, count in counts.items()]


def one_line(text: object) -> str:
    """Return a text with each run of white space as one space.

    Args:
        text: The text.

    Returns:
        One line.
    """
    return " ".join(str(text).split())


def begin_sentence(text: str) -> str:
    """Return a text with a capital first letter. A first word with capitals in it, such as "mIoU", stays as it is.

    Args:
        text: The text.

    Returns:
        The text as the beginning of a sentence or a heading.
    """
    first = text.partition(" ")[0]
    return text if first != first.lower() else f"{text[:1].upper()}{text[1:]}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the hint at the end of an error about an unknown word.

    Args:
        word: The unknown word.
        known: All known words.

    Returns:
        The closest known word, if any, and the list of known words.
    """
    names = sorted(known)
    casefolded = {name.casefold(): name for name in names}
    matches = difflib.get_close_matches(word.casefold(), casefolded, n=1, cutoff=0.5)
    hint = f"did you mean {casefolded[matches[0]]!r}? " if matches else ""
    more = f" and {len(names) - _MAX_KNOWN_NAMES} more" if len(names) > _MAX_KNOWN_NAMES else ""
    return f"{hint}known: {', '.join(names[:_MAX_KNOWN_NAMES])}{more}"


def format_duration(seconds: float) -> str:
    """Return a duration such as "42 s", "3 min 5 s" or "2 h 10 min".

    Args:
        seconds: The duration.

    Returns:
        The text.
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_bytes(count: float) -> str:
    """Return a size such as "812 B", "96.4 kB" or "1.2 MB".

    Args:
        count: Number of bytes.

    Returns:
        The text.
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def format_number(value: float) -> str:
    """Return a number with four digits, and at least with all of its whole number: "0.01235", "1700000123".

    Args:
        value: The number.

    Returns:
        The text.
    """
    return f"{value:.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def to_toml(values: Mapping[str, Any]) -> bytes:
    """Return a flat mapping as TOML. None is left out, as TOML has no such value.

    Args:
        values: Keys that are bare TOML keys -> strings, numbers or booleans.

    Returns:
        The text in UTF-8.
    """
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None)
    return "".join(lines).encode()


def file_stem(name: str) -> str:
    """Return a name for files in which every character but letters and digits is "_".

    Args:
        name: The name, such as the text of a method.

    Returns:
        The name of a file without suffix.
    """
    return "".join(char if char.isalnum() else "_" for char in name)
