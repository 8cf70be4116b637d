"""The precision of a search on a CPU: bf16 where the processor has it and a measurement shows that it is faster."""

import statistics
import time
from dataclasses import replace

import torch

from vpt.backbones import load_backbone
from vpt.search.budget import Clock
from vpt.search.context import SearchContext

_FASTER = 1.2  # times as fast that bf16 has to be
_PIXELS = 4 * 224**2  # of the images that measure it, where one image has fewer
_PASSES = 3  # in each precision, in turn; the median counts


def choose_precision(context: SearchContext, name: str) -> SearchContext:
    """Choose between fp32 and bf16 by the processor's time of a frozen pass, unless a precision is given.

    Nothing is measured on other devices than a CPU, where "auto" is right, and on CPUs without arithmetic in bf16,
    which emulate it. A search that a version without this choice has begun goes on in fp32.

    Args:
        context: The search.
        name: Name of the backbone.

    Returns:
        The search, with the option `precision` if it is bf16.
    """
    request, decisions = context.request, context.decisions
    if context.device.type != "cpu" or request.options.get("precision", "auto") != "auto":
        return context
    if decisions.resumed and not decisions.has("precision"):
        return context
    speedup = float(decisions.decide("precision", lambda: _measure(context, name), later=True))
    if speedup < _FASTER:
        return context
    context.callback.on_note(
        f"{name} takes {speedup:.1f} times as long in fp32 as in bf16 on this CPU, so the search runs in bf16 "
        "(--precision fp32 does not)"
    )
    return replace(context, request=replace(request, options={**request.options, "precision": "bf16"}))


def _measure(context: SearchContext, name: str) -> float:
    return speedup_of_bf16(context, name) if has_bf16_arithmetic() else 1.0


def has_bf16_arithmetic() -> bool:
    """Return whether the CPU multiplies in bf16; False where PyTorch cannot tell.

    Returns:
        True for AMX and AVX512-BF16.
    """
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name)() for name in names if hasattr(torch.cpu, name))


def speedup_of_bf16(context: SearchContext, name: str, clock: Clock = time.process_time) -> float:
    """Return the time of a pass of a backbone in fp32, times that in bf16.

    Args:
        context: The search.
        name: Name of the backbone.
        clock: Function that returns seconds. Default: those of this process, which other work does not change much.

    Returns:
        The quotient of the medians; 1 where no time passes.
    """
    job = context.request.job(name, "linear")
    backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
    size, channels = backbone.preprocessing.size, len(backbone.preprocessing.mean)
    images = torch.zeros(max(1, _PIXELS // size**2), channels, size, size)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for bf16 in (False, True) * _PASSES:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            start = clock()
            backbone.module(images)
            seconds[bf16].append(clock() - start)
    fp32, fast = statistics.median(seconds[False]), statistics.median(seconds[True])
    return fp32 / fast if fast > 0 else 1.0
