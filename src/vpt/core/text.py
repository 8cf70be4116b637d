"""Wording of notes and errors about many items: the first few by name, the rest as a count."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

MAX_LISTED = 20  # faults that one error names
_MAX_KNOWN_NAMES = 100  # names in a hint


def comma_list(items: Sequence[str], limit: int = 5) -> str:
    """Return items joined by commas, such as "a, b, c and 12 more".

    Args:
        items: The items.
        limit: Maximum number of items to name. Default: 5.

    Returns:
        One line of text.
    """
    more = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {more} more" if more > 0 else "")


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


def describe_counts(counts: Mapping[str, int]) -> list[str]:
    """Return the number of images of each class, such as "'cat' (3 images)".

    Args:
        counts: Class name to number of images.

    Returns:
        One text per class.
    """
    return [f"{name!r} ({pluralize(count, 'image')})" for name, count in counts.items()]


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
