"""A stand-in of a device without float64, such as MPS."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class NoFloat64(Tensor):
    """A tensor, and what is computed from it: float64 is refused, and `cpu()` returns an ordinary tensor."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(function, types, args, kwargs or {})
        if function is Tensor.cpu:
            with torch._C.DisableTorchFunctionSubclass():
                return result.as_subclass(Tensor)
        if isinstance(result, cls) and result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return result
