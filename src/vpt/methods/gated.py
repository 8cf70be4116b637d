"""Gated prompt tuning, for self-supervised backbones (Yoo et al., ICML 2023).

Plain prompts are weak on MAE and MoCo v3: which block should read them differs. Here prompts travel as in
VPT-shallow, each block has a gate that decides how far it may change them, and a temperature of its attention.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError, UnsupportedError
from vpt.methods.base import Injection, Method, Wrapper, compose
from vpt.methods.vpt import VPT


@dataclass(frozen=True)
class Gated(Method, name="gated", optimizer="adamw", learning_rate=0.02):
    """Shallow prompts with a learned gate per block that scales the update of the prompts.

    P_i = g_i * block_i(P_(i-1)) + (1 - g_i) * P_(i-1), g_i = sigmoid(a_i), a_i learned per block.

    Args:
        length: Number of prompts p. Default: 10.
        gate: g at the start: blocks read prompts before they change them. Default: 0.0067, which is the sigmoid(-5) of
            the authors' example.
        temperature: Attention is softmax(q k / (sqrt(d) T)), T learned per block, from 1 and within 0.01 to 10.
            Default: True.
        dropout: Dropout of the prompts in training. Default: 0.1.
    """

    length: int = 10
    gate: float = 0.0067
    temperature: bool = True
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.gate < 1:
            raise SpecError(f"gate is {self.gate}; it must lie between 0 and 1")
        VPT(length=self.length, depth="shallow", dropout=self.dropout)  # the same bounds, the same words

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan shallow prompts, a gate for every block but the last, and temperatures if asked for."""
        shallow = VPT(length=self.length, depth="shallow", dropout=self.dropout).plan(trunk, layout)
        if layout.kind != "tokens":
            raise UnsupportedError(
                f"gates stand between blocks of tokens, and those of {type(trunk).__name__} are windows"
            )
        wrappers: dict[str, Wrapper] = dict(shallow.wrappers)
        init_logit = math.log(self.gate / (1 - self.gate))
        # Behind the last block nobody reads a prompt, so its gate could not learn.
        for path in layout.blocks[:-1]:
            gated = partial(_GatedBlock, init_logit=init_logit, first=layout.num_prefix_tokens, length=self.length)
            # The first block is given its prompts by what stands around it, so its gate goes inside.
            wrappers[path] = compose(gated, wrappers[path]) if path in wrappers else gated
        if self.temperature:
            wrappers.update(dict.fromkeys(_query_norm_paths(trunk, layout), _TemperatureNorm))
        return Injection(modules=shallow.modules, wrappers=wrappers)


def _query_norm_paths(trunk: nn.Module, layout: BackboneLayout) -> list[str]:
    """Return the paths of the norms of queries. Raises UnsupportedError if a block has none."""
    paths = [name for name, _ in trunk.named_modules() if name.endswith(".q_norm")]
    if not all(any(path.startswith(f"{block}.") for path in paths) for block in layout.blocks):
        raise UnsupportedError("this attention has no place for a temperature; write gated(temperature=false)")
    return paths


class _GatedBlock(nn.Module):
    """Replacement of a block, with a gate."""

    def __init__(self, block: nn.Module, init_logit: float, first: int, length: int) -> None:
        super().__init__()
        self.block = block
        self.logit = nn.Parameter(torch.tensor(init_logit))
        self.first, self.last = first, first + length

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        out = self.block(x, **context)
        prompts = slice(self.first, self.last)
        gated_prompts = torch.lerp(x[:, prompts], out[:, prompts], torch.sigmoid(self.logit).to(out.dtype))
        return torch.cat([out[:, : self.first], gated_prompts, out[:, self.last :]], dim=1)


class _TemperatureNorm(nn.Module):
    """Replacement of the norm of queries, which divides them by the temperature, and so the scores of attention."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, q: Tensor) -> Tensor:
        normed: Tensor = self.norm(q)
        return normed / self.temperature.clamp(min=0.01).clamp(max=10).to(normed.dtype)
