"""Depths: the blocks that have prompts of their own."""

import re

from vpt.core.text import did_you_mean
from vpt.errors import SpecError, UnsupportedError


def check_depth(depth: str) -> None:
    """Check the form of a depth.

    Args:
        depth: "deep", "shallow" or a range such as "3-6".

    Raises:
        SpecError: The text has another form.
    """
    bounds = re.fullmatch(r"(\d+)-(\d+)", depth)
    if depth not in ("deep", "shallow") and not (bounds and 1 <= int(bounds[1]) <= int(bounds[2])):
        raise SpecError(
            f'depth is {depth!r}; it must be deep, shallow, or a range of blocks such as "3-6"; '
            f"{did_you_mean(depth, ('deep', 'shallow'))}"
        )


def block_range(depth: str, num_blocks: int) -> tuple[int, int]:
    """Return the first and the last block that have prompts of their own.

    Args:
        depth: "deep", "shallow" or a range such as "3-6".
        num_blocks: Number of blocks of the backbone.

    Returns:
        Two indices, from 0.

    Raises:
        UnsupportedError: The range ends behind the last block.
    """
    if depth in ("deep", "shallow"):
        return 0, num_blocks - 1 if depth == "deep" else 0
    first, last = (int(bound) for bound in depth.split("-"))
    if last > num_blocks:
        raise UnsupportedError(f"depth is {depth}, but there are {num_blocks} blocks")
    return first - 1, last - 1


def first_block(depth: str) -> int:
    """Return the index of the first block with prompts of its own, from 0."""
    return int(depth.split("-")[0]) - 1 if "-" in depth else 0
