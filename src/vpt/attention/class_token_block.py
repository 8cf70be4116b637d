"""The last block where the head reads the CLS token alone: only CLS asks, only CLS passes the MLP.

Exact (the second identity): no other output of the last block is ever read. Every token is still looked at, but where
keys are a linear function of the tokens none is formed: the weights are carried over to the query (`absorbed.py`).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vpt.attention.kv_attention import Attend
from vpt.backbones.layout import BlockLayout


class ClassTokenBlock(nn.Module):
    """Stands where a pre-norm block stood: (batch, tokens, d) -> (batch, 1, d), the block's CLS output."""

    def __init__(self, block: nn.Module, layout: BlockLayout) -> None:
        super().__init__()
        self.block = block
        self.layout = layout
        attention = getattr(block, layout.attention)
        if isinstance(attention, Attend):
            attention.queries = 1
        else:
            setattr(block, layout.attention, Attend(attention, queries=1))

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        block: Any = self.block
        layout = self.layout
        attention, mlp = getattr(block, layout.attention), getattr(block, layout.mlp)
        norm1, norm2 = getattr(block, layout.norm1), getattr(block, layout.norm2)
        cls = x[:, :1]
        branch = _scaled(getattr(block, layout.scale1, None), attention(norm1(x), **context))
        cls = cls + getattr(block, layout.drop1)(branch)
        branch = _scaled(getattr(block, layout.scale2, None), mlp(norm2(cls)))
        return cls + getattr(block, layout.drop2)(branch)  # type: ignore[no-any-return]


def _scaled(scale: nn.Module | Tensor | None, branch: Tensor) -> Tensor:
    if scale is None:
        return branch
    return scale(branch) if isinstance(scale, nn.Module) else scale * branch
