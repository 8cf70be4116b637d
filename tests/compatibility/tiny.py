"""The backbones and the images of the samples, the same to the bit wherever they are made.

Nothing here imports the library whose files are tested, so that this file outlives any change of it. Every weight comes
from integer arithmetic and IEEE rounding: no random generator, no transcendental function.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.models import register_model
from torch import Tensor, nn

SIDE = "tiny_side_network"  # the name by which the side-tuning sample asks timm for its network


def build(name: str, options: Mapping[str, Any], seed: int) -> nn.Module:
    """The backbone of an entry of expected.json: timm's `name` with `options`, every weight drawn from `seed`."""
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **given)
    _fill(model, seed)
    return model.eval()


def images(count: int, size: int) -> Tensor:
    """Input (count, 3, size, size): at image b, channel c, row y, column x stands
    ((7 b + 3 c + 5 y + 11 x + (b + 1) x y) mod 17) / 8 - 1.
    """
    b, c, y, x = np.ogrid[:count, :3, :size, :size]
    return torch.from_numpy((((7 * b + 3 * c + 5 * y + 11 * x + (b + 1) * x * y) % 17) / 8 - 1).astype(np.float32))


if not timm.is_model(SIDE):

    @register_model
    def tiny_side_network(pretrained: bool = False, **options: Any) -> nn.Module:
        """A ConvNeXt of a few thousand weights."""
        shape: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
        model: nn.Module = timm.create_model("convnext_atto", pretrained=False, **{**options, **shape})
        return model


def _uniform(count: int, seed: int) -> NDArray[np.float64]:
    """`count` numbers from -1 to below 1, of 24 bits each: splitmix64 of their place and the seed."""
    with np.errstate(over="ignore"):
        z = (np.arange(count, dtype=np.uint64) + np.uint64(seed) * np.uint64(1 << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1


@torch.no_grad()
def _fill(model: nn.Module, seed: int) -> None:
    """Every weight, bias, scale, table and running statistic, none of them at a value that would hide a fault."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        drawn = _uniform(tensor.numel(), (zlib.crc32(name.encode()) + seed) % (1 << 32)).reshape(tuple(tensor.shape))
        if name.endswith(("gamma_1", "gamma_2", "gamma", "running_var")) or (
            name.endswith("weight") and tensor.dim() == 1
        ):
            drawn = 1 + drawn / 2
        elif name.endswith("weight") and tensor.dim() > 1:
            drawn = drawn * math.sqrt(3 / tensor[0].numel())
        tensor.copy_(torch.from_numpy(drawn.astype(np.float32)))
