"""Small methods that use one extension point each, and exist in tests only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vpt import Injection, Method
from vpt.backbones.layout import BackboneLayout
from vpt.methods.init_inputs import InitInput, InitInputs
from vpt.methods.kv_prompts import inject_keys
from vpt.methods.prompts import make_prompts

P = 3


@dataclass(frozen=True)
class Penalized(Method):
    """Deep prompts whose squared norm is added to the loss."""

    name = "penalized"

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        prompts = nn.ModuleList(make_prompts(layout.block_widths(trunk), layout, P))
        wrappers = inject_keys(trunk, layout, dict(enumerate(prompts)))
        return Injection(modules={"prompts": prompts}, wrappers=wrappers, penalty=partial(squared_norm, prompts))


def squared_norm(module: nn.Module) -> Tensor:
    return torch.stack([weight.square().sum() for weight in module.parameters()]).sum()


@dataclass(frozen=True)
class FromTokens(Penalized):
    """Deep prompts that begin as the first sampled tokens of their block."""

    name = "from_tokens"

    @property
    def init_inputs(self) -> frozenset[InitInput]:
        return frozenset({"tokens"})

    def initialize(self, inputs: InitInputs, modules: nn.ModuleDict) -> None:
        for index, prompts in enumerate(modules["prompts"].children()):
            prompts.tokens.copy_(inputs.tokens[index][:P])


@dataclass(frozen=True)
class GatedKeys(Method):
    """Deep prompts with a softmax of their own and a gate per block."""

    name = "gated_keys"
    identity_at_init = True

    gate: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity_at_init", self.gate == 0)

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        prompts = nn.ModuleList(make_prompts(layout.block_widths(trunk), layout, P))
        gates = nn.ParameterList([nn.Parameter(torch.tensor(self.gate)) for _ in prompts])
        wrappers = inject_keys(trunk, layout, dict(enumerate(prompts)), gates=dict(enumerate(gates)))
        return Injection(modules={"prompts": prompts, "gates": gates}, wrappers=wrappers)


class PromptsOfMean(nn.Module):
    """The mean of a block's tokens, through a linear layer, as p prompts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, P * width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mean(1)).unflatten(1, (P, -1))


@dataclass(frozen=True)
class OfImage(Method):
    """Prompts that depend on the image."""

    name = "of_image"

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        prompts = nn.ModuleList([PromptsOfMean(width) for width in layout.block_widths(trunk)])
        wrappers = inject_keys(trunk, layout, dict(enumerate(prompts)), per_image=True)
        return Injection(modules={"prompts": prompts}, wrappers=wrappers)


@dataclass(frozen=True)
class OtherKeys(Method):
    """Deep prompts whose module has a name of its own."""

    name = "other_keys"

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        keys = nn.ModuleList(make_prompts(layout.block_widths(trunk), layout, P))
        return Injection(modules={"keys": keys}, wrappers=inject_keys(trunk, layout, dict(enumerate(keys))))
