"""How notes and errors about many images are worded: the first few by name, the rest as a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MOST = 20  # faults that one error names


def listed(items: Sequence[str], most: int = 5) -> str:
    """Like "a, b, c and 12 more": for a note of one line."""
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")


def lines(items: Sequence[str], most: int = MOST) -> str:
    """The same for an error, one item a line, each line indented and starting with a line break."""
    more = len(items) - most
    return "".join(f"\n  {item}" for item in items[:most]) + (f"\n  and {more} more" if more > 0 else "")


def number(count: int, noun: str) -> str:
    """Like "1 image" and "3 images"."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count} {noun if count == 1 else plural}"


def counted(counts: Mapping[str, int]) -> list[str]:
    """Class name -> images, as "'cat' (3 images)" each."""
    return [f"{name!r} ({number(count, 'image')})" for name, count in counts.items()]
