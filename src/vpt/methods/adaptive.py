"""Adaptive prompts that depend on the image (VAPT, Le et al., ICLR 2026), as the authors' code computes them."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.attention.forward_state import ForwardState, KeepInput
from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError, UnsupportedError
from vpt.methods.base import Injection, Method, Wrapper, compose
from vpt.methods.kv_prompts import inject_keys, prompted_block, require_kv_prompts
from vpt.methods.prompts import make_prompts
from vpt.methods.references import refer
from vpt.methods.vpt import VPT


@dataclass(frozen=True)
class Adaptive(Method, name="adaptive", optimizer="adamw", learning_rate=0.02):
    """Prompts of a block are weighted sums of its filtered image tokens, passed through a small MLP of all blocks.

    The first block has learned prompts. Each later one normalizes its tokens by a norm of its own, filters their map
    with one kernel for all channels, weights the result (p sums, which begin at 0) and adds an MLP d -> hidden -> d.

    Args:
        length: Number of prompts p of a block. Default: 10.
        kernel: Side of the filter in tokens. Default: 2.
        hidden: Inner width of the MLP. Default: 8.
        dropout: Dropout of the prompts of the first block, and inside the MLP, in training. Default: 0.1.
    """

    length: int = 10
    kernel: int = 2
    hidden: int = 8
    dropout: float = 0.1

    # The prompts read what enters the norm, whatever another method makes of the norm.
    wraps_last: ClassVar[bool] = True

    def __post_init__(self) -> None:
        VPT(length=self.length, dropout=self.dropout)  # the same bounds, the same words
        for name in ("kernel", "hidden"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan learned prompts in the first block, and prompts of the image in the others."""
        if layout.kind == "windows":
            raise UnsupportedError(
                f"all blocks share an MLP of one width, and the stages of {type(trunk).__name__} have their own widths"
            )
        require_kv_prompts(trunk, layout)
        num_patches = layout.num_tokens - layout.num_prefix_tokens
        side = math.isqrt(num_patches)
        if side**2 != num_patches or side < self.kernel:
            raise UnsupportedError(
                f"its {num_patches} patches make no square map of at least {self.kernel} x {self.kernel}; give a "
                "smaller kernel, or a square image"
            )
        first = make_prompts([layout.width], layout, self.length, dropout=self.dropout)[0]
        mlp = _SkipMLP(layout.width, self.hidden, self.dropout)
        maps = [_MapPrompts(self, layout, side, mlp) for _ in layout.blocks[1:]]
        for owner in maps[:1]:
            owner.mlp = mlp  # its one place in the tree
        wrappers: dict[str, Wrapper] = inject_keys(trunk, layout, {0: first})
        from_maps = inject_keys(trunk, layout, dict(enumerate(maps, 1)), per_image=True)
        wrappers |= {path: compose(wrapper, _normalize_by_inner_norm) for path, wrapper in from_maps.items()}
        for index, prompts in enumerate(maps, 1):
            _, names = prompted_block(trunk, layout, index)
            wrappers[f"{layout.blocks[index]}.{names.norm1}"] = partial(KeepInput, state=prompts.tokens)
        modules = {"prompts": nn.ModuleList([first, *maps])}
        return Injection(modules=modules, wrappers=wrappers, fixed_image_size=True)


class _SkipMLP(nn.Module):
    """x + W_2 dropout(relu(W_1 x)), without biases."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.dropout(F.relu(self.down(x))))  # type: ignore[no-any-return]


class _MapPrompts(nn.Module):
    """Prompts of a block, from the tokens that enter it.

    Those come from `KeepInput`, as attention sees them after the block's norm.
    """

    mlp: nn.Module

    def __init__(self, method: Adaptive, layout: BackboneLayout, side: int, mlp: _SkipMLP) -> None:
        super().__init__()
        self.num_prefix_tokens, self.side = layout.num_prefix_tokens, side
        self.norm = nn.LayerNorm(layout.width)
        self.kernel = nn.Parameter(torch.randn(1, 1, method.kernel, method.kernel))
        self.channel_dropout = nn.Dropout2d(0.1)
        self.weights = nn.Linear((side - method.kernel + 1) ** 2, method.length)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        refer(self, mlp=mlp)
        self.tokens: ForwardState[Tensor] = ForwardState()  # from the norm to attention

    def forward(self, x: Tensor) -> Tensor:
        patches = self.norm(self.tokens.pop().to(self.kernel.dtype))[:, self.num_prefix_tokens :]
        maps = patches.transpose(1, 2).unflatten(2, (self.side, self.side))
        width = maps.shape[1]
        filtered = F.conv2d(maps, self.kernel.expand(width, -1, -1, -1), groups=width)
        sums = self.weights(self.channel_dropout(filtered).flatten(2)).transpose(1, 2)
        return self.mlp(sums)  # type: ignore[no-any-return]


def _normalize_by_inner_norm(attention: nn.Module) -> nn.Module:
    """Let the prompts of an attention pass the block's norm without `KeepInput`, which is for the tokens."""
    keys: Any = attention.kv_prompts
    refer(keys, norm=keys.norm.norm)
    return attention
