"""Paired measurement: every form once per round, every second round backwards, ratios within a round.

What drifts from round to round (clock, heat, neighbors) falls out of a ratio; what favors the first or the last
in a round falls out over two rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def time_paired(
    variants: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu", clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of every form in every round. Each is called once before, unmeasured."""
    for variant in variants.values():
        variant()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for round_index in range(rounds):
        for name in list(variants) if round_index % 2 == 0 else reversed(list(variants)):
            seconds[name].append(time_call(variants[name], device, clock))
    return seconds


def time_call(variant: Callable[[], object], device: str = "cpu", clock: Clock = time.perf_counter) -> float:
    """Seconds of one call, to its end on the device."""
    _synchronize(device)
    start = clock()
    variant()
    _synchronize(device)
    return clock() - start


def quartiles(values: list[float]) -> dict[str, float]:
    """Median, quartiles and n."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": statistics.median(values), "low": low, "high": high, "n": len(values)}


def summarize(seconds: Mapping[str, list[float]], reference: str) -> dict[str, Any]:
    """For every form: seconds, and how many times the reference's of the same round."""
    return {
        name: {
            "seconds": quartiles(values),
            "times_reference": quartiles([a / b for a, b in zip(values, seconds[reference], strict=True)]),
        }
        for name, values in seconds.items()
    }


def format_quartiles(values: Mapping[str, float], digits: int = 2) -> str:
    """`1.02 (1.01–1.04)`: median and quartiles."""
    return f"{values['median']:.{digits}f} ({values['low']:.{digits}f}–{values['high']:.{digits}f})"


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
