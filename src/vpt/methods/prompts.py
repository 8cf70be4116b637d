"""Prompts as modules: the learned tokens, and the ways they enter a block."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Prompts(nn.Module):
    """p tokens of width d.

    Initialised uniform(-v, v) (paper, section 4). Dropout zeroes single entries, independently per sample.

    tokens: (p, d), or (1, d) for one vector repeated p times, or (p or 1, k) before a projection.
    projection: k -> d, where prompts are learned in a smaller width. frozen: they stay as drawn.
    """

    def __init__(
        self,
        length: int,
        width: int,
        init_range: float,
        dropout: float,
        *,
        num_vectors: int | None = None,
        projection: nn.Linear | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        dim = width if projection is None else projection.in_features
        tokens = torch.empty(num_vectors or length, dim).uniform_(-init_range, init_range)
        self.tokens: Tensor
        if frozen:
            self.register_buffer("tokens", tokens)
        else:
            self.tokens = nn.Parameter(tokens)
        self.projection = projection
        self.length = length
        self.dropout = nn.Dropout(0.0 if frozen else dropout)

    def forward(self, batch: int) -> Tensor:
        """(p, d), the same for all samples; (batch, p, d) while dropout is at work."""
        tokens = self.tokens if self.projection is None else self.projection(self.tokens)
        tokens = tokens.expand(self.length, -1)
        if self.training and self.dropout.p > 0:
            return self.dropout(tokens.expand(batch, -1, -1))  # type: ignore[no-any-return]
        return tokens


def xavier_range(patch_size: int, width: int) -> float:
    """v = sqrt(6 / (3 * patch_size^2 + d)): the range of a Xavier-initialized patch projection (paper, section 4)."""
    return math.sqrt(6 / (3 * patch_size**2 + width))


class PromptKeys(nn.Module):
    """Prompts as a block's attention reads them: after the block's own first norm.

    windows_per_image: how many rows of x belong to one sample (windows).
    """

    def __init__(self, prompts: Callable[[int], Tensor], norm: nn.Module, windows_per_image: int = 1) -> None:
        super().__init__()
        self.prompts = prompts
        self.norm = norm
        self.windows_per_image = windows_per_image

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.prompts(x.shape[0] // self.windows_per_image).to(x.dtype))  # type: ignore[no-any-return]


class InsertPrompts(nn.Module):
    """Puts prompts into the sequence before a block: [CLS, P, E], after positional encoding (paper, section 3)."""

    def __init__(self, block: nn.Module, prompts: Callable[[int], Tensor], num_prefix_tokens: int) -> None:
        super().__init__()
        self.block = block
        self.prompts = prompts
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        prompts = self.prompts(x.shape[0]).expand(x.shape[0], -1, -1).to(x.dtype)
        x = torch.cat([x[:, : self.num_prefix_tokens], prompts, x[:, self.num_prefix_tokens :]], dim=1)
        return self.block(x, **context)  # type: ignore[no-any-return]


class RemovePrompts(nn.Module):
    """Takes the prompts' outputs out of the sequence after a block."""

    def __init__(self, block: nn.Module, length: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.block = block
        self.length = length
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        x = self.block(x, **context)
        return torch.cat([x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens + self.length :]], dim=1)


class AddPrompts(nn.Module):
    """Adds prompts to the tokens before a block: one to each, or one to all."""

    def __init__(self, block: nn.Module, prompts: Callable[[int], Tensor]) -> None:
        super().__init__()
        self.block = block
        self.prompts = prompts

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        return self.block(x + self.prompts(x.shape[0]).to(x.dtype), **context)  # type: ignore[no-any-return]
