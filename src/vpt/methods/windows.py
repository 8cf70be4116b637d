"""Prompts in Swin: every window of a block sees them, and patch merging passes over them (paper, section 4, Swin)."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vpt.attention.windows import PromptedWindowAttention
from vpt.backbones.layout import BackboneLayout
from vpt.errors import UnsupportedError
from vpt.methods.base import Injection, Wrapper
from vpt.methods.kv_prompts import check_takes_prompts, inject_keys
from vpt.methods.references import refer

PromptOutputs = Literal["discard", "pass", "pool"]
GridState = Tensor | tuple[Tensor, Tensor]  # (batch, height, width, d), alone or with prompts (batch, p, d)


def plan_windows(
    trunk: nn.Module,
    layout: BackboneLayout,
    make_prompts: Callable[[list[int]], list[nn.Module]],
    *,
    deep: bool,
    kv: bool,
    pool_prompts: bool,
) -> Injection:
    """Deep: each block has prompts of its stage's width, as keys and values. Shallow: they travel beside the grid.

    make_prompts: widths of blocks -> their prompts. kv: deep prompts as keys and values only, where nobody reads more.
    pool_prompts: the pooled feature averages the last block's prompts too.
    """
    if not layout.supports_kv_prompts:
        raise UnsupportedError(
            f"the windows of {type(trunk).__name__} attend in a way that is not known here, so prompts have no place "
            'in them; around the image they fit: "vpt(location=pad, depth=shallow)"'
        )
    blocks: list[Any] = [trunk.get_submodule(path) for path in layout.blocks]
    last = len(blocks) - 1 if deep else 0
    prompts = make_prompts(layout.block_widths(trunk)[: last + 1])
    wrappers: dict[str, Wrapper] = {}
    for index, path in enumerate(layout.blocks):
        is_last = index == len(blocks) - 1
        block_prompts = prompts[index] if index <= last else None
        outputs: PromptOutputs = "pool" if is_last else "pass"
        if index < last or (is_last and not pool_prompts):
            outputs = "discard"
        if block_prompts is not None and outputs == "discard" and kv:
            wrappers.update(inject_keys(trunk, layout, {index: block_prompts}))
        else:
            wrappers[path] = partial(_PromptedSwinBlock, prompts=block_prompts, outputs=outputs)
    if not deep:  # the only prompts that ever reach a merging of patches
        merges = [path for path in layout.downsamples if hasattr(trunk.get_submodule(path), "reduction")]
        wrappers.update(dict.fromkeys(merges, _PromptedPatchMerging))
    return Injection(modules={"prompts": nn.ModuleList(dict.fromkeys(prompts))}, wrappers=wrappers)


class _PromptedSwinBlock(nn.Module):
    """Replacement of a Swin block that runs prompts and grid through the same attention and MLP.

    Args:
        block: The block.
        prompts: The block's own prompts; None where they arrive with the grid.
        outputs: "discard" the outputs of the prompts, "pass" them on beside the grid, or, in the last block, join them
            and the grid to one row, so that the model will "pool" both.
    """

    prompts: Callable[[int], Tensor] | None

    def __init__(self, block: Any, prompts: Callable[[int], Tensor] | None, outputs: PromptOutputs) -> None:
        super().__init__()
        if not hasattr(block, "attn"):
            raise UnsupportedError("another term wraps its blocks, and prompts go inside; write position=mlp")
        check_takes_prompts(block.attn)
        block.attn = PromptedWindowAttention(block.attn)
        self.block = block
        refer(self, prompts=prompts)
        self.outputs = outputs

    def forward(self, state: GridState) -> GridState:
        x: Tensor
        if isinstance(state, tuple):
            x, prompts = state
        else:
            assert self.prompts is not None
            batch = state.shape[0]  # len() would fix the batch size of an exported graph
            x, prompts = state, self.prompts(batch).expand(batch, -1, -1).to(state.dtype)
        block: Any = self.block
        block.attn.set_prompts(block.norm1.forward(prompts))  # hooks are for the grid
        x = block(x)
        prompt_out = block.attn.pop_prompts()
        if self.outputs == "discard":
            return x
        prompts = prompts + block.drop_path1.forward(prompt_out)
        prompts = prompts + block.drop_path2.forward(block.mlp.forward(block.norm2.forward(prompts)))
        if self.outputs == "pool":
            return torch.cat([x.flatten(1, 2), prompts], dim=1).unsqueeze(1)
        return x, prompts


class _PromptedPatchMerging(nn.Module):
    """Replacement of patch merging: a prompt is repeated four times and reduced like a merged patch."""

    def __init__(self, merge: nn.Module) -> None:
        super().__init__()
        self.merge: Any = merge

    def forward(self, state: GridState) -> GridState:
        x, prompts = state
        normed = self.merge.norm.forward(prompts.repeat(1, 1, 4))
        return self.merge(x), self.merge.reduction.forward(normed)
