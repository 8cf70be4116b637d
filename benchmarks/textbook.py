"""The forms that others use, written plainly: concatenate the prompts, run the block, replace them in the next.

Nothing of vpt is used here, so that what it is compared with cannot share its faults or its merits.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class TextbookViT(nn.Module):
    """VPT-deep on a timm ViT that reads CLS, as the paper writes it (section 3, equation 5) and its code does it.

    fused: attention in one call (`scaled_dot_product_attention`) or, as the published code has it, as softmax(q k) v.
    Images (batch, 3, 224, 224) -> logits (batch, classes). Only prompts and head train.
    """

    def __init__(self, model: Any, length: int, classes: int, *, fused: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        for block in model.blocks:
            block.attn.fused_attn = fused
        width, patch = model.embed_dim, model.patch_embed.patch_size[0]
        bound = math.sqrt(6 / (3 * patch**2 + width))
        self.prompts = nn.ParameterList(torch.empty(length, width).uniform_(-bound, bound) for _ in model.blocks)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def train(self, mode: bool = True) -> TextbookViT:
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        model = self.model
        x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
        first_patch = 1  # what is behind CLS and the prompts of the block before
        for block, prompts in zip(model.blocks, self.prompts, strict=True):
            prompt_tokens = self.dropout(prompts.expand(len(x), -1, -1))
            x = block(torch.cat([x[:, :1], prompt_tokens, x[:, first_patch:]], dim=1))
            first_patch = 1 + prompt_tokens.shape[1]
        return self.head(model.norm(x)[:, 0])


class FrozenViT(nn.Module):
    """timm's own forward, with a head: what a feature costs without any prompts."""

    def __init__(self, model: Any, classes: int) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.head = nn.Linear(model.num_features, classes)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.model(images))
