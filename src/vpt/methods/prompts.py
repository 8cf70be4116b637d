"""Prompts as modules: the learned tokens, and the three ways they enter a block."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vpt.backbone.sites import Sites


class Prompts(nn.Module):
    """p learned tokens of width d.

    Initialised uniform(-v, v), v = sqrt(6 / (3 * patch^2 + d)) (paper, section 4 and its code's reading: the
    range of a Xavier-initialised patch projection). Dropout zeroes single entries, independently per sample.
    """

    def __init__(self, length: int, sites: Sites, dropout: float) -> None:
        super().__init__()
        bound = math.sqrt(6 / (3 * sites.patch**2 + sites.width))
        self.tokens = nn.Parameter(torch.empty(length, sites.width).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: int) -> Tensor:
        """(p, d), the same for all samples; (batch, p, d) while dropout is at work."""
        if self.training and self.dropout.p > 0:
            return self.dropout(self.tokens.expand(batch, -1, -1))  # type: ignore[no-any-return]
        return self.tokens


class PromptKeys(nn.Module):
    """Prompts as a block's attention reads them: after the block's own first norm."""

    def __init__(self, prompts: Prompts, norm: nn.Module) -> None:
        super().__init__()
        self.prompts = prompts
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.prompts(x.shape[0]).to(x.dtype))  # type: ignore[no-any-return]


class Insert(nn.Module):
    """Puts prompts into the sequence before a block: [CLS, P, E], after positional encoding (paper, section 3)."""

    def __init__(self, block: nn.Module, prompts: Prompts, prefix: int) -> None:
        super().__init__()
        self.block = block
        self.prompts = prompts
        self.prefix = prefix

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        prompts = self.prompts(x.shape[0]).expand(x.shape[0], -1, -1).to(x.dtype)
        x = torch.cat([x[:, : self.prefix], prompts, x[:, self.prefix :]], dim=1)
        return self.block(x, **context)  # type: ignore[no-any-return]


class Remove(nn.Module):
    """Takes the prompts' outputs out of the sequence after a block."""

    def __init__(self, block: nn.Module, length: int, prefix: int) -> None:
        super().__init__()
        self.block = block
        self.length = length
        self.prefix = prefix

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        x = self.block(x, **context)
        return torch.cat([x[:, : self.prefix], x[:, self.prefix + self.length :]], dim=1)
