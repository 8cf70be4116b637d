"""A network split at the first block that a method changes: the output of the frozen blocks before it never changes.

`run_frozen_prefix` computes the input of that block, and `forward` continues from there.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vpt.attention.detection import FeatureExtractor, capture_block_input, probe_image
from vpt.data.preprocessing import Preprocessing


class SplitForward(nn.Module):
    """The blocks of a network from one on: input of the block (batch, ...) -> pooled features (batch, d).

    Args:
        network: The network; its modules are shared.
        blocks: Paths of its blocks, first to last.
        first_block: Index of the block to continue from.
        preprocessing: The preprocessing of the images.
    """

    def __init__(
        self, network: FeatureExtractor, blocks: Sequence[str], first_block: int, preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        self.network = network
        self.path: str = blocks[first_block]
        self.preprocessing = preprocessing
        self.input_override: _InputOverride = _InputOverride(network.trunk.get_submodule(self.path))
        replacements: dict[str, nn.Module] = {path: _SkippedBlock() for path in blocks[:first_block]}
        trunk = _replace_modules(network.trunk, {**replacements, self.path: self.input_override})
        self.suffix: FeatureExtractor = FeatureExtractor(trunk, network.pool)

    @torch.no_grad()
    def run_frozen_prefix(self, images: Tensor) -> Tensor:
        """Normalized images (batch, 3, size, size) -> what goes into the block."""
        x, _ = capture_block_input(self.network.trunk.get_submodule(self.path), self.network, images)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the features from the input of the first block that runs.

        Args:
            x: Output of `run_frozen_prefix` (batch, ...).

        Returns:
            Pooled features (batch, d).
        """
        # The trunk's own forward knows what stands around the blocks (positions, norms). It is given one image, which
        # passes by all blocks before the first and is dropped there.
        self.input_override.x = x
        return self.suffix(probe_image(self.network.trunk, self.preprocessing))  # type: ignore[no-any-return]


class _SkippedBlock(nn.Module):
    """Replacement of a block that need not run."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x


class _InputOverride(nn.Module):
    """Replacement of the first block that runs: its input is set before the forward pass."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.x: Tensor | None = None  # of the next call

    def forward(self, _: Tensor, **context: Any) -> Tensor:
        x, self.x = self.x, None
        return self.block(x, **context)  # type: ignore[no-any-return]


def _replace_modules(trunk: nn.Module, replacements: dict[str, nn.Module]) -> nn.Module:
    """Return the modules in new containers, with some replaced; `trunk` stays as it is."""
    copies: dict[str, Any] = {"": _shallow_copy(trunk)}
    for path, module in replacements.items():
        *parents, last = path.split(".")
        for depth, name in enumerate(parents):
            outer, inner = ".".join(parents[:depth]), ".".join(parents[: depth + 1])
            if inner not in copies:
                copies[inner] = copies[outer]._modules[name] = _shallow_copy(copies[outer]._modules[name])
        copies[".".join(parents)]._modules[last] = module
    return copies[""]  # type: ignore[no-any-return]


def _shallow_copy(module: Any) -> Any:
    copied = copy.copy(module)
    copied.__dict__["_modules"] = dict(module._modules)
    return copied
