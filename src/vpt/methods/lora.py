"""LoRA: low-rank changes of linear layers (Hu et al., ICLR 2022)."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.backbones.layout import BackboneLayout
from vpt.core.spec import later_field
from vpt.errors import SpecError, UnsupportedError
from vpt.methods.base import Injection, Method
from vpt.methods.mergeable import Mergeable

_QUERIES_VALUES = re.compile(r"(qkv|[qv](_proj)?|query|value)")
_VALUES = re.compile(r"(qkv|v(_proj)?|value)")
# Beside the known families, where timm's qkv layers make queries, keys and values one after the other. In others, such
# as TinyViT and MaxViT, each head has its own three.
_IN_THIRDS = frozenset(
    f"timm.models.{name}"
    for name in (
        *("cait", "coat", "convit", "davit", "edgenext", "hiera", "hieradet_sam2", "metaformer", "mvitv2"),
        *("nest", "swin_transformer_v2_cr", "vision_transformer_relpos", "vision_transformer_sam", "xcit"),
    )
)


@dataclass(frozen=True)
class LoRA(Method, name="lora", optimizer="adamw", learning_rate=2e-3, identity_at_init=True):
    """Low-rank updates of linear layers: W + (alpha / rank) B A, with A (rank, in) random and B (out, rank) 0 at first.

    The updates can be merged into plain weights.

    Args:
        rank: Rank of the updates. Default: 8.
        alpha: The updates are scaled by alpha / rank. Default: 8.
        targets: "attention" (queries, keys, values and output projection), "queries_values" (as in the LoRA paper),
            "mlp", or "all" linear layers of every block. Default: "attention".
        rank_dropout: Probability that a rank-1 term is left out of a training step; the terms then have learned
            coefficients, which begin at 1 (MLAE, Wang et al., 2024). Where queries, keys or the prompts of another term
            are projected apart, each projection draws its own. Default: 0.
    """

    rank: int = 8
    alpha: float = 8.0
    targets: Literal["attention", "queries_values", "mlp", "all"] = "attention"
    rank_dropout: float = later_field(0.0)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise SpecError(f"rank is {self.rank}; it must be at least 1")
        if self.alpha <= 0:
            raise SpecError(f"alpha is {self.alpha}; it must be above 0")
        if not 0 <= self.rank_dropout < 1:
            raise SpecError(f"rank_dropout is {self.rank_dropout}; it must be at least 0 and below 1")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan a low-rank update for every linear layer that `targets` names."""
        if self.targets != "queries_values":
            paths = layout.block_linears(trunk, self.targets)
            return Injection(wrappers=dict.fromkeys(paths, partial(_LoRALinear, method=self)))
        names = {path: path.rpartition(".")[2] for path in layout.block_linears(trunk, "attention")}
        wrappers = {
            path: partial(_LoRALinear, method=self, changes=2 if name == "qkv" else 1)
            for path, name in names.items()
            if _QUERIES_VALUES.fullmatch(name)
        }
        if not wrappers:
            found = ", ".join(sorted(set(names.values())))
            raise UnsupportedError(f"none of its layers {found} is known to make queries; write targets=attention")
        _require_values(trunk, layout, wrappers)
        return Injection(wrappers=wrappers)


def _require_values(trunk: nn.Module, layout: BackboneLayout, paths: Iterable[str]) -> None:
    """Raise UnsupportedError where the layers at these paths make no values, or it is not known where."""
    layers: dict[str, list[str]] = {}
    for path in paths:
        owner, _, name = path.rpartition(".")
        layers.setdefault(owner, []).append(name)
    for path, names in layers.items():
        if not any(map(_VALUES.fullmatch, names)):
            raise UnsupportedError(
                f"{path} makes queries in {names[0]}, and no layer there is known to make values alone; write "
                "targets=attention"
            )
        kind = type(trunk.get_submodule(path))
        if "qkv" in names and not layout.has_token_blocks and kind.__module__ not in _IN_THIRDS:
            raise UnsupportedError(
                f"the order in which {path}.qkv ({kind.__name__}) makes queries, keys and values is not known; write "
                "targets=attention"
            )


class _LoRALinear(Mergeable):
    """Replacement of a linear layer.

    changes: 1, of the whole weight, or 2, of the queries and of the values in a layer that makes q, k and v.
    """

    def __init__(self, layer: nn.Module, method: LoRA, changes: Literal[1, 2] = 1) -> None:
        super().__init__(layer)
        outputs, inputs = self.layer.weight.shape
        self.changes: int = changes
        self.down = nn.Parameter(torch.empty(changes * method.rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs if changes == 1 else 2 * outputs // 3, method.rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)
        self.scale = method.alpha / method.rank
        self.rank_dropout = method.rank_dropout
        coefficients = torch.ones(changes * method.rank) if method.rank_dropout else None
        self.coefficients = None if coefficients is None else nn.Parameter(coefficients)

    @property
    def weight(self) -> Tensor:
        return self._changed_weight(self._draw_coefficients())

    def merged_state(self) -> dict[str, Tensor]:
        return {**super().merged_state(), "weight": self._changed_weight(self.coefficients)}

    def _draw_coefficients(self) -> Tensor | None:
        return None if self.coefficients is None else F.dropout(self.coefficients, self.rank_dropout, self.training)

    def _changed_weight(self, coefficients: Tensor | None) -> Tensor:
        down = self.down if coefficients is None else coefficients.unsqueeze(1) * self.down
        pairs = zip(self.up.chunk(self.changes), down.chunk(self.changes), strict=True)
        change = _with_keys([up @ down for up, down in pairs], dim=0)
        return self.layer.weight + self.scale * change.to(self.layer.weight.dtype)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.linear(x, self.down.to(x.dtype))
        coefficients = self._draw_coefficients()
        if coefficients is not None:
            hidden = hidden * coefficients.to(x.dtype)
        pairs = zip(hidden.chunk(self.changes, dim=-1), self.up.to(x.dtype).chunk(self.changes), strict=True)
        change = _with_keys([F.linear(h, up) for h, up in pairs], dim=-1)
        return self.layer(x) + self.scale * change  # type: ignore[no-any-return]


def _with_keys(changes: Sequence[Tensor], dim: int) -> Tensor:
    """Return the change of a layer; the keys between queries and values do not change."""
    return changes[0] if len(changes) == 1 else torch.cat([changes[0], torch.zeros_like(changes[0]), changes[1]], dim)
