"""Fused attention, left out where its backward pass is slow."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def without_fused_attention(model: nn.Module) -> Iterator[None]:
    """Form the attention weights instead of fusing their product with the values, as `set_fused_attn(False)` of timm.

    In bf16 on a CPU, the backward pass of PyTorch's fused attention takes about half of a training step. The result is
    the same to rounding; the weights need memory for each block.

    Args:
        model: Model whose attention modules have timm's flag `fused_attn`. Each gets its own value back at the end.
    """
    fused: list[Any] = [module for module in model.modules() if getattr(module, "fused_attn", False) is True]
    for module in fused:
        module.fused_attn = False
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True
