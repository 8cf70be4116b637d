"""Gated prompt tuning, for self-supervised backbones (Yoo et al., ICML 2023).

Plain prompts are weak on MAE and MoCo v3: which block should listen to them differs. Here prompts travel as in
VPT-shallow, each block has a gate that decides how far it may change them, and a temperature of its attention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vpt.backbones.layout import Sites
from vpt.errors import FitError, SpecError
from vpt.methods.base import Method, Plan, Wrap
from vpt.methods.vpt import VPT


@dataclass(frozen=True)
class Gated(Method):
    """P_i = g_i * block_i(P_(i-1)) + (1 - g_i) * P_(i-1), g_i = sigmoid(a_i), a_i learned per block.

    length: p. gate: g at the start, sigmoid(-5) in the authors' example: blocks read prompts before they change them.
    temperature: attention is softmax(q k / (sqrt(d) T)), T learned per block, from 1 and within 0.01 to 10.
    dropout: on the prompts, in training.
    """

    name: ClassVar[str] = "gated"
    optimizer: ClassVar[Literal["sgd", "adamw"]] = "adamw"
    learning_rate: ClassVar[float] = 0.02

    length: int = 10
    gate: float = 0.0067
    temperature: bool = True
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.gate < 1:
            raise SpecError(f"gate is {self.gate}; it must lie between 0 and 1")
        VPT(length=self.length, depth="shallow", dropout=self.dropout)  # the same bounds, the same words

    def plan(self, trunk: nn.Module, sites: Sites) -> Plan:
        if sites.kind != "tokens":
            raise FitError("gates stand between the blocks of a plain transformer, and it is none")
        shallow = VPT(length=self.length, depth="shallow", dropout=self.dropout).plan(trunk, sites)
        wraps: dict[str, Wrap] = dict(shallow.wraps)
        start = math.log(self.gate / (1 - self.gate))
        # Behind the last block nobody reads a prompt, so its gate could not learn.
        for path in sites.blocks[:-1]:
            gated = partial(_Gate, start=start, first=sites.prefix, length=self.length)
            if path == sites.blocks[0]:
                # The first block is given its prompts by what stands around it, so its gate goes inside.
                wraps[path] = partial(_inside, outer=wraps[path], inner=gated)
            else:
                wraps[path] = gated
        if self.temperature:
            wraps.update(dict.fromkeys(_queries(trunk, sites), _Cooled))
        return Plan(adds=shallow.adds, wraps=wraps)


def _queries(trunk: nn.Module, sites: Sites) -> list[str]:
    """Where queries pass in each block, on their way to attention. Raises FitError where there is no such place."""
    places = [name for name, _ in trunk.named_modules() if name.endswith(".q_norm")]
    if not all(any(place.startswith(f"{block}.") for place in places) for block in sites.blocks):
        raise FitError("this attention has no place for a temperature; write gated(temperature=false)")
    return places


class _Gate(nn.Module):
    """Stands where a block stood."""

    def __init__(self, block: nn.Module, start: float, first: int, length: int) -> None:
        super().__init__()
        self.block = block
        self.logit = nn.Parameter(torch.tensor(start))
        self.first = first
        self.length = length

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        out = self.block(x, **context)
        first, last = self.first, self.first + self.length
        mixed = torch.lerp(x[:, first:last], out[:, first:last], torch.sigmoid(self.logit).to(out.dtype))
        return torch.cat([out[:, :first], mixed, out[:, last:]], dim=1)


class _Cooled(nn.Module):
    """Stands where queries are normed: divides them by the temperature, and so what attention compares."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, q: Tensor) -> Tensor:
        normed: Tensor = self.norm(q)
        return normed / self.temperature.clamp(0.01, 10).to(normed.dtype)


def _inside(block: nn.Module, outer: Wrap, inner: Wrap) -> nn.Module:
    return outer(inner(block))
