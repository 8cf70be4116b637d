"""Models of timm on the device "meta", which takes no memory for their weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm.layers
import torch
from torch.overrides import TorchFunctionMode

# Without it, timm (before 1.0.17) reads the rates of stochastic depth one by one from a range of the default device.
_READS_RANGES = not hasattr(timm.layers, "calculate_drop_path_rates")


class _RangesOnCpu(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if function is torch.linspace and not options:  # ranges that a model keeps have a type
            options = {"device": "cpu"}
        return function(*args, **options)


@contextmanager
def meta_device() -> Iterator[None]:
    """Make models on the device "meta" during a `with` block."""
    with torch.device("meta"):
        if not _READS_RANGES:
            yield
            return
        with _RangesOnCpu():
            yield
