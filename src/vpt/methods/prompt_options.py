"""Checks of the fields of `VPT`."""

from __future__ import annotations

import re
from typing import Any

from vpt.core.text import did_you_mean
from vpt.errors import SpecError, UnsupportedError

_BLOCK_RANGE = re.compile(r"(\d+)-(\d+)")
_PIXEL_LOCATIONS = ("prepend_pixel", "concat_channel", "pad")


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


def check_options(
    spec: str,
    *,
    length: int,
    depth: str,
    dropout: float,
    location: str,
    output: str,
    init: str,
    shared: str,
    projection: int | None,
    frozen: bool,
    **_: Any,
) -> None:
    """Check the fields of `VPT`, each and together.

    Args:
        spec: The method's text, for the message.
        length: Number of prompts of a block.
        depth: Blocks with prompts.
        dropout: Dropout of the prompts.
        location: Location of the prompts.
        output: Tokens that the head reads.
        init: Initialization of the prompts.
        shared: Prompts that are shared.
        projection: Width in which the prompts are learned.
        frozen: The prompts keep their initial values.

    Raises:
        SpecError: A field is out of range, or two fields contradict each other.
    """
    if length < 1:
        raise SpecError(f"length is {length}; a prompt needs at least one token (no prompts at all: `linear`)")
    if not 0 <= dropout < 1:
        raise SpecError(f"dropout is {dropout}; it must be at least 0 and below 1")
    bounds = _BLOCK_RANGE.fullmatch(depth)
    if depth not in ("deep", "shallow") and not (bounds and 1 <= int(bounds[1]) <= int(bounds[2])):
        raise SpecError(
            f'depth is {depth!r}; it must be deep, shallow, or a range of blocks such as "3-6"; '
            f"{did_you_mean(depth, ('deep', 'shallow'))}"
        )
    if projection is not None and projection < 1:
        raise SpecError(f"projection is {projection}; it must be at least 1")
    default_prompts = (shared, projection, init) == ("none", None, "random") and not frozen
    for invalid, reason in (
        (
            location in _PIXEL_LOCATIONS and depth != "shallow",
            f"{location} changes the image, which only the first block reads; write depth=shallow",
        ),
        (
            location in ("add", "add_1") and length != 10,
            "add has a prompt for every token, and add_1 one for all; leave length out",
        ),
        (
            location in _PIXEL_LOCATIONS and not default_prompts,
            f"shared, projection, init and frozen are for prompts that are tokens, not for {location}",
        ),
        (
            location in ("add", "add_1", "concat_channel", "pad") and output.startswith("prompt"),
            f"with {location} no prompt comes out of the last block; read cls, image_mean or image_max",
        ),
        (
            init == "prototypes" and (projection is not None or shared in ("prompts", "all")),
            "prototypes are whole tokens, one per class; they go with neither projection nor shared vectors",
        ),
        (
            init == "prototypes" and location != "prepend",
            "prototypes are tokens, and go with location=prepend",
        ),
        (frozen and projection is not None, "a projection trains, so the prompts would not stay frozen"),
    ):
        if invalid:
            raise SpecError(f"{spec}: {reason}")
