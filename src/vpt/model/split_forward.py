"""The blocks before the first that a method changes: what comes out of them is the same in every epoch.

`Resumed` splits a network there: `enter` computes what goes into that block, and the forward pass goes on from it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vpt.attention.detection import Features, input_of, probe_image


class Resumed(nn.Module):
    """The input of a block (batch, ...) -> pooled features (batch, d), over the very modules of `network`.

    blocks: paths of the network's blocks, first to last. first: position of the block to go on from. size: of images.
    """

    def __init__(self, network: Features, blocks: Sequence[str], first: int, size: int) -> None:
        super().__init__()
        self.network = network
        self.path = blocks[first]
        self.size = size
        self.entrance = _Entrance(network.trunk.get_submodule(self.path))
        instead: dict[str, nn.Module] = {path: _Passed() for path in blocks[:first]}
        self.rest = Features(_with(network.trunk, {**instead, self.path: self.entrance}), network.pool)

    @torch.no_grad()
    def enter(self, images: Tensor) -> Tensor:
        """Normalised images (batch, 3, size, size) -> what goes into the block."""
        x, _ = input_of(self.network.trunk.get_submodule(self.path), self.network, images)
        return x

    def forward(self, x: Tensor) -> Tensor:
        # The trunk's own forward knows what stands around the blocks (positions, norms). It is given one image, which
        # passes by all blocks before the first and is dropped there.
        self.entrance.come(x)
        return self.rest(probe_image(self.network.trunk, self.size))  # type: ignore[no-any-return]


class _Passed(nn.Module):
    """Stands where a block stood that need not run."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x


class _Entrance(nn.Module):
    """Stands where the first block stood that runs: takes what came beside the forward pass."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self._x: Tensor | None = None

    def come(self, x: Tensor) -> None:
        """Take x for the next call."""
        self._x = x

    def forward(self, _: Tensor, **context: Any) -> Tensor:
        x, self._x = self._x, None
        return self.block(x, **context)  # type: ignore[no-any-return]


def _with(trunk: nn.Module, instead: dict[str, nn.Module]) -> nn.Module:
    """The same modules in containers of their own, with some replaced; `trunk` stays as it is."""
    twins: dict[str, Any] = {"": _twin(trunk)}
    for path, module in instead.items():
        *above, last = path.split(".")
        for depth, name in enumerate(above):
            outer, inner = ".".join(above[:depth]), ".".join(above[: depth + 1])
            if inner not in twins:
                twins[inner] = twins[outer]._modules[name] = _twin(twins[outer]._modules[name])
        twins[".".join(above)]._modules[last] = module
    return twins[""]  # type: ignore[no-any-return]


def _twin(module: Any) -> Any:
    twin = copy.copy(module)
    twin.__dict__["_modules"] = dict(module._modules)
    return twin
