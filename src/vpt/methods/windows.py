"""Prompts in Swin: every window of a block sees them, and patch merging passes over them (paper, section 4, Swin)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vpt.attention.windows import WindowAttend, WindowCarry
from vpt.backbones.layout import Sites
from vpt.errors import FitError
from vpt.methods.base import Plan, Wrap
from vpt.methods.prompts import PromptKeys

Grid = Tensor | tuple[Tensor, Tensor]  # (batch, height, width, d), alone or with prompts (batch, p, d)


def plan(
    trunk: nn.Module,
    sites: Sites,
    make: Callable[[list[int]], list[nn.Module]],
    *,
    deep: bool,
    exact: bool,
    pooled: bool,
) -> Plan:
    """Deep: each block has prompts of its stage's width, as keys and values. Shallow: they travel beside the grid.

    make: widths of blocks -> their prompts. exact: deep prompts as keys and values only, where nobody reads more.
    pooled: the pooled feature averages the last block's prompts too.
    """
    if not sites.open:
        raise FitError(
            f"the windows of {type(trunk).__name__} attend in a way that is not known here, so prompts have no place "
            'in them; around the image they fit: "vpt(location=pad, depth=shallow)"'
        )
    blocks: list[Any] = [trunk.get_submodule(path) for path in sites.blocks]
    last = len(blocks) - 1 if deep else 0
    prompts = make([block.dim for block in blocks[: last + 1]])
    wraps: dict[str, Wrap] = {}
    for index, (path, block) in enumerate(zip(sites.blocks, blocks, strict=True)):
        ends = index == len(blocks) - 1
        own = prompts[index] if index <= last else None
        keys_only = index < last or (ends and own is not None and not pooled)
        if own is not None and keys_only and exact:
            wraps[f"{path}.attn"] = partial(_as_keys, prompts=own, block=block)
        else:
            wraps[path] = partial(_Beside, prompts=own, ends=ends, drops=keys_only, pooled=pooled)
    if not deep:  # the only prompts that ever reach a merging of patches
        wraps.update({path: _Merge for path in sites.merges if hasattr(trunk.get_submodule(path), "reduction")})
    return Plan(adds={"prompts": nn.ModuleList(dict.fromkeys(prompts))}, wraps=wraps)


def _as_keys(attention: nn.Module, prompts: Callable[[int], Tensor], block: Any) -> nn.Module:
    windows = math.prod(
        math.ceil(side / window) for side, window in zip(block.input_resolution, block.window_size, strict=True)
    )
    return WindowAttend(attention, PromptKeys(prompts, block.norm1, windows))


class _Beside(nn.Module):
    """Stands where a Swin block stood: runs prompts beside the grid, through the same attention and MLP.

    prompts: the block's own; None where they come with the grid. ends: it is the last block. drops: nobody reads what
    comes out of the prompts here. pooled: at the end, prompts join the grid as one long row, so that the pooled
    feature averages them too.
    """

    def __init__(
        self, block: Any, prompts: Callable[[int], Tensor] | None, ends: bool, drops: bool, pooled: bool
    ) -> None:
        super().__init__()
        block.attn = WindowCarry(block.attn)
        self.block = block
        self.prompts = prompts
        self.ends = ends
        self.drops = drops
        self.pooled = pooled

    def forward(self, state: Grid) -> Grid:
        x: Tensor
        if isinstance(state, tuple):
            x, prompts = state
        else:
            assert self.prompts is not None
            x, prompts = state, self.prompts(len(state)).expand(len(state), -1, -1).to(state.dtype)
        block: Any = self.block
        block.attn.come(block.norm1(prompts))
        x = block(x)
        answer = block.attn.go()
        if self.drops or (self.ends and not self.pooled):
            return x
        prompts = prompts + block.drop_path1(answer)
        prompts = prompts + block.drop_path2(block.mlp(block.norm2(prompts)))
        if self.ends:
            return torch.cat([x.flatten(1, 2), prompts], dim=1).unsqueeze(1)
        return x, prompts


class _Merge(nn.Module):
    """Stands where patch merging stood: a prompt is put beside itself four times and reduced like a merged patch."""

    def __init__(self, merge: nn.Module) -> None:
        super().__init__()
        self.merge: Any = merge

    def forward(self, state: Grid) -> Grid:
        x, prompts = state
        return self.merge(x), self.merge.reduction(self.merge.norm(prompts.repeat(1, 1, 4)))
