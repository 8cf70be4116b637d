"""Blocks whose sequence of tokens contains prompts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vpt.methods.references import refer


class InsertPrompts(nn.Module):
    """Inserts prompts into the sequence before a block: [CLS, P, E], after positional encoding (paper, section 3).

    Args:
        block: The block.
        prompts: Batch size -> prompts (p, d) or (batch, p, d).
        num_prefix_tokens: Number of tokens before the prompts.
    """

    prompts: Callable[[int], Tensor]

    def __init__(self, block: nn.Module, prompts: Callable[[int], Tensor], num_prefix_tokens: int) -> None:
        super().__init__()
        self.block = block
        refer(self, prompts=prompts)
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        """Return the output of the block.

        Args:
            x: Tokens (batch, tokens, d).
            **context: Further arguments of the block.

        Returns:
            The tokens with the prompts (batch, tokens + p, d).
        """
        prompts = self.prompts(x.shape[0]).expand(x.shape[0], -1, -1).to(x.dtype)
        x = torch.cat([x[:, : self.num_prefix_tokens], prompts, x[:, self.num_prefix_tokens :]], dim=1)
        return self.block(x, **context)  # type: ignore[no-any-return]


class RemovePrompts(nn.Module):
    """Removes the outputs of prompts from the sequence after a block.

    Args:
        block: The block.
        length: Number of prompts.
        num_prefix_tokens: Number of tokens before the prompts.
    """

    def __init__(self, block: nn.Module, length: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.block = block
        self.length = length
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        """Return the output of the block.

        Args:
            x: Tokens (batch, tokens, d).
            **context: Further arguments of the block.

        Returns:
            The tokens without the prompts (batch, tokens - p, d).
        """
        x = self.block(x, **context)
        return torch.cat([x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens + self.length :]], dim=1)


class AddPrompts(nn.Module):
    """Adds prompts to the tokens before a block: one to each, or one to all.

    Args:
        block: The block.
        prompts: Batch size -> prompts (tokens or 1, d), or (batch, tokens or 1, d).
    """

    prompts: Callable[[int], Tensor]

    def __init__(self, block: nn.Module, prompts: Callable[[int], Tensor]) -> None:
        super().__init__()
        self.block = block
        refer(self, prompts=prompts)

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        """Return the output of the block.

        Args:
            x: Tokens (batch, tokens, d).
            **context: Further arguments of the block.

        Returns:
            The tokens (batch, tokens, d).
        """
        return self.block(x + self.prompts(x.shape[0]).to(x.dtype), **context)  # type: ignore[no-any-return]
