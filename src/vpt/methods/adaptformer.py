"""AdaptFormer: a small branch beside each block's MLP (Chen et al., NeurIPS 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError
from vpt.methods.adapter import Bottleneck
from vpt.methods.base import Injection, Method


@dataclass(frozen=True)
class AdaptFormer(Method, name="adaptformer", optimizer="adamw", learning_rate=2e-3, identity_at_init=True):
    """mlp(x) + scale * up(relu(down(x))), with x the MLP's own, normalized input.

    bottleneck: inner width of the branch. scale: how strongly it speaks (0.1 in the AdaptFormer paper).
    """

    bottleneck: int = 64
    scale: float = 0.1

    def __post_init__(self) -> None:
        if self.bottleneck < 1:
            raise SpecError(f"bottleneck is {self.bottleneck}; it must be at least 1")
        if self.scale == 0:
            raise SpecError("scale is 0; the branch would never speak")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan a parallel branch beside the MLP of every block."""
        wrappers = {
            path: partial(_ParallelAdapter, branch=Bottleneck(width, self.bottleneck, nn.ReLU()), scale=self.scale)
            for path, width in layout.block_mlps(trunk).items()
        }
        return Injection(wrappers=wrappers)


class _ParallelAdapter(nn.Module):
    """Stands where an MLP stood."""

    def __init__(self, mlp: nn.Module, branch: Bottleneck, scale: float) -> None:
        super().__init__()
        self.mlp = mlp
        self.branch = branch
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) + self.scale * self.branch(x)  # type: ignore[no-any-return]
