"""Checks of the options of `vpt`, a `VPT`: bounds, and options that contradict each other."""

from typing import Any

from vpt.errors import SpecError, UnsupportedError
from vpt.methods.depth import check_depth
from vpt.methods.prompts import check_share


def check_options(method: Any) -> None:
    """Check the values of the options.

    Args:
        method: The method.

    Raises:
        SpecError: A value is out of bounds, or two options contradict each other.
    """
    if method.length < 1:
        raise SpecError(f"length is {method.length}; a prompt needs at least one token (no prompts at all: `linear`)")
    if not 0 <= method.dropout < 1:
        raise SpecError(f"dropout is {method.dropout}; it must be at least 0 and below 1")
    if not 0 <= method.fourier <= 1:
        raise SpecError(f"fourier is {method.fourier}; it must lie between 0 and 1, as a share of the prompts")
    check_share("fourier", method.fourier, method.length)
    if not 0 <= method.expansion <= 1:
        raise SpecError(f"expansion is {method.expansion}; it must lie between 0 and 1")
    if method.neighbors < 1:
        raise SpecError(f"neighbors is {method.neighbors}; it must be at least 1")
    check_depth(method.depth)
    for name in ("projection", "rank"):
        value = getattr(method, name)
        if value is not None and value < 1:
            raise SpecError(f"{name} is {value}; it must be at least 1")
    for contradiction, found in _contradictions(method).items():
        if found:
            raise SpecError(f"{method}: {contradiction}")


def check_windows(method: Any) -> None:
    """Check that the options have a meaning in the windows of Swin.

    Args:
        method: The method.

    Raises:
        UnsupportedError: An option has none.
    """
    depths = ("deep", "shallow")
    if method.location != "prepend" or method.output != "default" or method.depth not in depths or method.drop_after:
        raise UnsupportedError(
            "in windows prompts are prepended, deep or shallow, and the head reads the backbone's default"
        )
    if method.init not in ("random", "tokens"):
        raise UnsupportedError(
            "a prototype is as wide as the final feature, and the stages have widths of their own"
            if method.init == "prototypes"
            else "vipamin reads attention over all tokens of an image, and windows have their own; take init=tokens"
        )


def _contradictions(method: Any) -> dict[str, bool]:
    """Return a description of each pair of options that contradict each other -> True if they do."""
    location, projects, prototypes = method.location, method.projection is not None, method.init == "prototypes"
    adds, in_pixels = location in ("add", "add_1"), location in ("prepend_pixel", "concat_channel", "pad")
    factored, begins_at_data = projects or method.rank is not None, method.init != "random"
    token_options = method.frozen or factored or begins_at_data or method.shared != "none" or method.fourier > 0
    no_prompts_out, gated = adds or location in ("concat_channel", "pad"), method.attention == "zero_init"
    reads_prompts = method.output.startswith(("prompt", "global"))
    return {
        f"{location} changes the image, which only the first block reads; write depth=shallow": (
            in_pixels and method.depth != "shallow"
        ),
        "add has a prompt for every token, and add_1 one for all; leave length out": adds and method.length != 10,
        f"shared, projection, rank, fourier, init and frozen are for prompts that are tokens, not for {location}": (
            in_pixels and token_options
        ),
        f"with {location} no prompt comes out of the last block; read cls, image_mean or image_max": (
            no_prompts_out and method.output.startswith("prompt")
        ),
        f"drop_after drops tokens; {location} adds none, or output={method.output} reads them": (
            method.drop_after and (no_prompts_out or reads_prompts)
        ),
        "prototypes are whole tokens, one per class; they go with neither projection nor shared vectors": (
            prototypes and (factored or method.shared in ("prompts", "all"))
        ),
        "a start at patch tokens is for whole tokens of each block, not for projection, rank or shared prompts": (
            method.init in ("tokens", "vipamin") and (factored or method.shared != "none")
        ),
        f"{method.init} are tokens, and go with location=prepend": begins_at_data and location != "prepend",
        "neighbors and expansion are options of init=vipamin": (
            method.init != "vipamin" and (method.neighbors, method.expansion) != (8, 0.1)
        ),
        "a projection trains, so the prompts would not stay frozen": method.frozen and factored,
        "projection and rank both factor the prompts; keep one": projects and method.rank is not None,
        "a softmax of their own is for prompts that are keys and values: depth=deep, location=prepend, and an output "
        "that reads no prompts": (
            gated
            and (location != "prepend" or method.depth == "shallow" or method.output.startswith(("prompt", "glo")))
        ),
        "prompts with a softmax of their own are keys and values; impl=concat computes tokens": (
            gated and method.impl == "concat"
        ),
        "prompts with a softmax of their own do not come out of a block; leave pool_prompts and drop_after out": (
            gated and (method.pool_prompts or method.drop_after)
        ),
    }
