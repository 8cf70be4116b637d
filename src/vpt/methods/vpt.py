"""Visual prompt tuning, deep and shallow (paper, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import nn

from vpt.backbone.attention import Attend
from vpt.backbone.sites import BlockLayout, Sites
from vpt.errors import FitError, SpecError
from vpt.methods.base import Method, Plan
from vpt.methods.prompts import Insert, PromptKeys, Prompts, Remove

Wrap = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class VPT(Method):
    """Learned tokens in the input of a frozen transformer.

    length: p, prompts per block. depth: "deep" gives every block its own prompts (equation 5); "shallow" gives the
    first block prompts that travel through all (equation 4). dropout: on the prompts, in training.
    form: "exact" computes deep prompts as keys and values only, at the cost of the frozen backbone; "textbook"
    concatenates and discards, as written in the paper. Equal to rounding; blocks that the exact form does not know
    get the textbook form in either case.
    """

    name: ClassVar[str] = "vpt"
    # The paper searches SGD from 0.05 to 50 per task; without a search AdamW is the safer start (LOG.md).
    optimizer: ClassVar[Literal["sgd", "adamw"]] = "adamw"
    learning_rate: ClassVar[float] = 0.02

    length: int = 10
    depth: Literal["deep", "shallow"] = "deep"
    dropout: float = 0.1
    form: Literal["exact", "textbook"] = "exact"

    def __post_init__(self) -> None:
        if self.length < 1:
            raise SpecError(f"length is {self.length}; a prompt needs at least one token (no prompts at all: `linear`)")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout is {self.dropout}; it must be at least 0 and below 1")

    def plan(self, trunk: nn.Module, sites: Sites) -> Plan:
        if not sites.blocks:
            raise FitError(f"prompts need transformer blocks, and none are known in {type(trunk).__name__}")
        return self._deep(trunk, sites) if self.depth == "deep" else self._shallow(trunk, sites)

    def _deep(self, trunk: nn.Module, sites: Sites) -> Plan:
        prompts = [Prompts(self.length, sites, self.dropout) for _ in sites.blocks]
        wraps: dict[str, Wrap] = {}
        for path, own in zip(sites.blocks, prompts, strict=True):
            block = trunk.get_submodule(path)
            layout = sites.layout(block)
            if sites.open and layout is not None and self.form == "exact":
                norm = getattr(block, layout.norm1)
                wraps[f"{path}.{layout.attention}"] = partial(Attend, extra=PromptKeys(own, norm))
            else:
                wraps.update(self._travelling(sites, block, path, layout))
                wraps[path] = partial(_through, prompts=own, length=self.length, prefix=sites.prefix)
        return Plan(adds={"prompts": nn.ModuleList(prompts)}, wraps=wraps)

    def _shallow(self, trunk: nn.Module, sites: Sites) -> Plan:
        prompts = Prompts(self.length, sites, self.dropout)
        wraps: dict[str, Wrap] = {}
        for path in sites.blocks:
            block = trunk.get_submodule(path)
            wraps.update(self._travelling(sites, block, path, sites.layout(block)))
        first, last = sites.blocks[0], sites.blocks[-1]
        wraps[first] = partial(Insert, prompts=prompts, prefix=sites.prefix)
        if not sites.reads_class_token:  # else nobody reads what is behind CLS
            leave = partial(Remove, length=self.length, prefix=sites.prefix)
            enter = wraps.get(last)
            wraps[last] = leave if enter is None else lambda block: leave(enter(block))
        return Plan(adds={"prompts": nn.ModuleList([prompts])}, wraps=wraps)

    def _travelling(self, sites: Sites, block: nn.Module, path: str, layout: BlockLayout | None) -> dict[str, Wrap]:
        """What a block's attention needs where prompts run through it as tokens: to know that they have no place."""
        if sites.family is None or not sites.family.placed:
            return {}
        if sites.open and layout is not None:
            return {f"{path}.{layout.attention}": partial(Attend, floating=self.length)}
        raise FitError(
            f"{type(block).__name__} ties every token to a place in the image in a way that is not known here, "
            "so prompts cannot be told apart from patches"
        )


def _through(block: nn.Module, prompts: Prompts, length: int, prefix: int) -> nn.Module:
    """The textbook block: concatenate, run, discard."""
    return Remove(Insert(block, prompts, prefix), length, prefix)
