"""Pooling of the final tokens (paper, section 4.3, "prompt output"; both: DINOv2, Oquab et al., 2024)."""

from typing import Literal

import torch
from torch import Tensor, nn

from vpt.backbones.layout import BackboneLayout
from vpt.errors import UnsupportedError

_ImagePool = Literal["default", "cls", "image_mean", "image_max"]
PoolName = Literal[_ImagePool, "prompt_mean", "prompt_max", "global_mean", "global_max"]
PromptFreePool = Literal[_ImagePool, "cls_image_mean"]  # where there are no prompts


class TokenPool(nn.Module):
    """(batch, tokens, d), in the order CLS and registers, prompts, image -> (batch, d), or (batch, 2, d) for two.

    output: "cls"; the mean or maximum over image tokens, over prompts, or over both ("global"); or two of these.
    """

    def __init__(self, output: str, num_prefix_tokens: int, num_prompts: int) -> None:
        super().__init__()
        self.output = output
        self.num_prefix_tokens = num_prefix_tokens
        self.num_prompts = num_prompts

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what the head reads of the tokens.

        Args:
            tokens: Final tokens (batch, tokens, d): class token and registers, prompts, image.

        Returns:
            (batch, d), or (batch, 2, d) if `output` names two.
        """
        first, last = self.num_prefix_tokens, self.num_prefix_tokens + self.num_prompts
        if self.output == "cls":
            return tokens[:, 0]
        if self.output == "cls_image_mean":
            return torch.stack([tokens[:, 0], tokens[:, last:].mean(dim=1)], dim=1)
        region, reduction = self.output.split("_")
        regions = {"image": tokens[:, last:], "prompt": tokens[:, first:last], "global": tokens[:, first:]}
        selected = regions[region]
        return selected.mean(dim=1) if reduction == "mean" else selected.amax(dim=1)


def make_pool(output: str, layout: BackboneLayout, num_prompts: int) -> TokenPool | None:
    """Return the pooling of the final tokens.

    Args:
        output: Name of the pooling.
        layout: The layout of the backbone.
        num_prompts: Number of prompts between the prefix and the patches.

    Returns:
        The pooling; None where it is the backbone's own.

    Raises:
        UnsupportedError: The backbone has no such tokens.
    """
    if output == "default" or (output == "cls" and layout.reads_class_token):
        return None
    if layout.kind != "tokens":
        raise UnsupportedError(f"output={output} reads single tokens, which only plain transformers have")
    if output.startswith("cls") and not layout.has_class_token:
        raise UnsupportedError(f"output={output}, but it has no class token")
    return TokenPool(output, layout.num_prefix_tokens, num_prompts)
