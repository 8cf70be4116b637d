"""How notes and errors about many images are worded: the first few by name, the rest as a number."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

MAX_LISTED = 20  # faults that one error names
_MAX_KNOWN_NAMES = 100  # names in a hint


def comma_list(items: Sequence[str], limit: int = 5) -> str:
    """Like "a, b, c and 12 more": for a note of one line."""
    more = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {more} more" if more > 0 else "")


def bullets(items: Sequence[str], limit: int = MAX_LISTED) -> str:
    """The same for an error, one item a line, each line indented and starting with a line break."""
    more = len(items) - limit
    return "".join(f"\n  {item}" for item in items[:limit]) + (f"\n  and {more} more" if more > 0 else "")


def pluralize(count: int, noun: str) -> str:
    """Like "1 image" and "3 images"."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count} {noun if count == 1 else plural}"


def describe_counts(counts: Mapping[str, int]) -> list[str]:
    """Class name -> images, as "'cat' (3 images)" each."""
    return [f"{name!r} ({pluralize(count, 'image')})" for name, count in counts.items()]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that ends an error about an unknown `word`: the nearest known one, then the others."""
    names = sorted(known)
    casefolded = {name.casefold(): name for name in names}
    matches = difflib.get_close_matches(word.casefold(), casefolded, n=1, cutoff=0.5)
    hint = f"did you mean {casefolded[matches[0]]!r}? " if matches else ""
    more = f" and {len(names) - _MAX_KNOWN_NAMES} more" if len(names) > _MAX_KNOWN_NAMES else ""
    return f"{hint}known: {', '.join(names[:_MAX_KNOWN_NAMES])}{more}"
