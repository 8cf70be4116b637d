"""The last block where the head reads the CLS token alone: only CLS asks, only CLS passes the MLP.

Exact (the second identity): no other output of the last block is ever read. Every token is still looked at, but where
keys are a linear function of the tokens none is formed: the weights are carried over to the query (`absorbed.py`).
"""

from typing import Any

from torch import Tensor, nn

from vpt.attention.kv_attention import KVAttention
from vpt.backbones.layout import BlockLayout


class ClassTokenBlock(nn.Module):
    """Replacement of a pre-norm block: (batch, tokens, d) -> (batch, 1, d), the block's CLS output."""

    def __init__(self, block: nn.Module, block_layout: BlockLayout) -> None:
        super().__init__()
        self.block = block
        self.block_layout = block_layout
        if not isinstance(self.attention, KVAttention):
            setattr(block, block_layout.attention, KVAttention(self.attention))
        self.attention.num_queries = 1

    @property
    def attention(self) -> Any:
        """The block's attention; all tokens come out of the block while its `num_queries` is None."""
        return getattr(self.block, self.block_layout.attention)

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        """Return the class token after the block.

        Args:
            x: Tokens (batch, tokens, d), the class token first.
            **context: Further arguments of the block's attention, such as a mask.

        Returns:
            The class token (batch, 1, d).
        """

        def part(role: str) -> Any:
            return getattr(self.block, getattr(self.block_layout, role), None)

        if self.attention.num_queries is None:
            return self.block(x, **context)  # type: ignore[no-any-return]
        branch = part("attention")(part("norm1")(x), **context)
        cls = x[:, :1] + part("drop1")(_apply_scale(part("scale1"), branch))
        branch = part("mlp")(part("norm2")(cls))
        return cls + part("drop2")(_apply_scale(part("scale2"), branch))  # type: ignore[no-any-return]


def _apply_scale(scale: nn.Module | Tensor | None, branch: Tensor) -> Tensor:
    if scale is None:
        return branch
    return scale(branch) if isinstance(scale, nn.Module) else scale * branch
