"""The precision of a search on a CPU: bf16 where a measurement shows that it is faster."""

from dataclasses import replace

import torch

from vpt.backbones import load_backbone
from vpt.search.budget import measure
from vpt.search.context import SearchContext

_FASTER = 1.2  # times as fast that bf16 has to be
_PIXELS = 4 * 224**2  # of the images that measure it, where one image has fewer
_PASSES = 2  # of which the faster one counts: the first allocates memory


def choose_precision(context: SearchContext) -> SearchContext:
    """Choose between fp32 and bf16 by the time of a frozen pass, unless a precision is given.

    On other devices than a CPU nothing is measured, as "auto" is right there. A search that a version without this
    choice has begun goes on in fp32.

    Args:
        context: The search.

    Returns:
        The search, with the option `precision` if it is bf16.
    """
    request, decisions = context.request, context.decisions
    if context.device.type != "cpu" or request.options.get("precision", "auto") != "auto":
        return context
    if decisions.resumed and not decisions.has("precision"):
        return context
    speedup = float(decisions.decide("precision", lambda: _speedup_of_bf16(context), later=True))
    if speedup < _FASTER:
        return context
    context.callback.on_note(
        f"{request.backbones[0]} takes {speedup:.1f} times as long in fp32 as in bf16 on this CPU, so the search runs "
        "in bf16 (--precision fp32 does not)"
    )
    return replace(context, request=replace(request, options={**request.options, "precision": "bf16"}))


def _speedup_of_bf16(context: SearchContext) -> float:
    """Return the time of a pass in fp32, times that in bf16."""
    job = context.request.job(context.request.backbones[0], "linear")
    backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
    size, channels = backbone.preprocessing.size, len(backbone.preprocessing.mean)
    images = torch.zeros(max(1, _PIXELS // size**2), channels, size, size)
    seconds = {False: float("inf"), True: float("inf")}
    for bf16 in (False, True) * _PASSES:
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        with torch.inference_mode(), autocast, measure(context.budget.clock) as watch:
            backbone.module(images)
        seconds[bf16] = min(seconds[bf16], watch.seconds)
    return seconds[False] / seconds[True] if seconds[True] > 0 else 1.0
