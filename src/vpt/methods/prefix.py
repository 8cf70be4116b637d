"""Prefix tuning: learned keys and values of attention (E2VPT, Han et al., ICCV 2023; the word is PEFT's)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vpt.attention.joint_attention import KeyValues
from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError
from vpt.methods.base import Injection, Method
from vpt.methods.depth import block_range
from vpt.methods.kv_prompts import inject_keys, prompted_block, require_kv_prompts
from vpt.methods.prompts import xavier_range
from vpt.methods.vpt import VPT


@dataclass(frozen=True)
class Prefix(Method, name="prefix", optimizer="adamw", learning_rate=0.02):
    """Keys and values of p prompts are learned in each block, after projection, instead of tokens.

    Args:
        length: Number of prompts p of a block. Default: 10.
        depth: "deep" for every block, or a range such as "3-6". Default: "deep".
        dropout: Dropout of keys and values in training. Default: 0.1.
        shared: One tensor is both keys and values. Default: False.
    """

    length: int = 10
    depth: str = "deep"
    dropout: float = 0.1
    shared: bool = False

    def __post_init__(self) -> None:
        VPT(length=self.length, depth=self.depth, dropout=self.dropout)  # the same bounds, the same words
        if self.depth == "shallow":
            raise SpecError("a prefix has no output that propagates; write depth=deep, or a range such as 1-1")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan keys and values for each block."""
        require_kv_prompts(trunk, layout)
        first, last = block_range(self.depth, len(layout.blocks))
        prefixes: dict[int, nn.Module] = {}
        for index in range(first, last + 1):
            block, names = prompted_block(trunk, layout, index)
            prefixes[index] = _Prefix(self, getattr(block, names.attention), layout)
        modules = {"prefix": nn.ModuleList(prefixes.values())}
        return Injection(modules=modules, wrappers=inject_keys(trunk, layout, prefixes))


class _Prefix(nn.Module):
    """Keys and values (heads, p, d/heads) of a block."""

    def __init__(self, method: Prefix, attention: Any, layout: BackboneLayout) -> None:
        super().__init__()
        heads = attention.num_heads
        width = attention.proj.in_features // heads
        init_range = xavier_range(layout.patch_size, width)
        self.keys: nn.Parameter = nn.Parameter(
            torch.empty(heads, method.length, width).uniform_(-init_range, init_range)
        )
        self.values: nn.Parameter | None = None
        if not method.shared:
            self.values = nn.Parameter(torch.empty_like(self.keys).uniform_(-init_range, init_range))
        self.dropout: nn.Dropout = nn.Dropout(method.dropout)

    def forward(self, batch: int) -> KeyValues:
        """Return the keys and values of a batch, one for all samples, or for each while dropout is applied."""

        def of_batch(tensor: Tensor) -> Tensor:
            if self.training and self.dropout.p > 0:
                return self.dropout(tensor.expand(batch, -1, -1, -1))  # type: ignore[no-any-return]
            return tensor

        return KeyValues(of_batch(self.keys), of_batch(self.keys if self.values is None else self.values))
