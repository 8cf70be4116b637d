"""The precision of a search on a CPU: bf16 where the processor multiplies matrices in it."""

from dataclasses import replace
from typing import Any

import torch

from vpt.backbones import load_backbone
from vpt.search.context import SearchContext

_FEWEST_PARAMETERS = 4_000_000  # of a backbone that gains: products of small matrices are not where its time goes


def choose_precision(context: SearchContext, name: str) -> SearchContext:
    """Choose bf16 on a CPU that is faster in it, unless a precision is given: outside of searches "auto" is fp32 there.

    A search keeps its choice when it is resumed on another device.

    Args:
        context: The search.
        name: Name of the backbone.

    Returns:
        The search, with the option `precision` if it is bf16.
    """
    request, decisions = context.request, context.decisions
    if request.options.get("precision", "auto") != "auto":
        return context
    later = not decisions.path.exists()
    if decisions.decide("precision", lambda: _faster_precision(context, name), later=later) != "bf16":
        return context
    context.callback.on_note(
        "this CPU multiplies matrices in bf16 (AMX or AVX512-BF16), so the search runs in bf16, up to twice as fast "
        "(--precision fp32 does not)"
    )
    return replace(context, request=replace(request, options={**request.options, "precision": "bf16"}))


def _faster_precision(context: SearchContext, name: str) -> str:
    if context.device.type != "cpu" or not has_fast_bf16():
        return "auto"
    structure = load_backbone(name, image_size=context.request.options.get("image_size"), device="meta")
    count = sum(weight.numel() for weight in structure.module.parameters())
    return "bf16" if count >= _FEWEST_PARAMETERS else "auto"


def has_fast_bf16() -> bool:
    """Return whether the CPU multiplies matrices in bf16 faster than in fp32.

    Intel CPUs do with AMX. AMD's do with AVX512-BF16 (Zen 4 and later); on Intel's that alone is slower than fp32.

    Returns:
        True if it does; False where PyTorch cannot tell.
    """
    if getattr(torch.cpu, "_is_amx_tile_supported", bool)():
        return True
    capabilities = getattr(torch.cpu, "get_capabilities", dict[str, Any])()
    return bool(capabilities.get("avx512_bf16")) and str(capabilities.get("cpu_name", "")).startswith("AMD")
