"""What the head reads of the final tokens (paper, section 4.3, "prompt output"; both: DINOv2, Oquab et al., 2024)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vpt.backbones.layout import Sites
from vpt.errors import FitError

Output = Literal["default", "cls", "image_mean", "image_max", "prompt_mean", "prompt_max", "global_mean", "global_max"]
Whole = Literal["default", "cls", "image_mean", "image_max", "cls_image_mean"]  # where there are no prompts


def reading(output: str, sites: Sites, length: int) -> Read | None:
    """The pool for `output` behind `length` prompts, None where it is the backbone's own. Raises FitError."""
    if output == "default" or (output == "cls" and sites.reads_class_token):
        return None
    if sites.kind != "tokens":
        raise FitError(f"output={output} reads single tokens, which only plain transformers have")
    if output.startswith("cls") and sites.prefix == 0:
        raise FitError(f"output={output}, but it has no class token")
    return Read(output, sites.prefix, length)


class Read(nn.Module):
    """(batch, tokens, d), in the order CLS and registers, prompts, image -> (batch, d), or (batch, 2, d) for two.

    output: "cls"; the mean or maximum over image tokens, over prompts, or over both ("global"); or two of these.
    """

    def __init__(self, output: str, prefix: int, length: int) -> None:
        super().__init__()
        self.output = output
        self.prefix = prefix
        self.length = length

    def forward(self, tokens: Tensor) -> Tensor:
        if self.output == "cls":
            return tokens[:, 0]
        if self.output == "cls_image_mean":
            return torch.stack([tokens[:, 0], tokens[:, self.prefix + self.length :].mean(dim=1)], dim=1)
        what, how = self.output.split("_")
        first, last = self.prefix, self.prefix + self.length
        part = {"image": tokens[:, last:], "prompt": tokens[:, first:last], "global": tokens[:, first:]}[what]
        return part.mean(dim=1) if how == "mean" else part.amax(dim=1)
