"""AdaptFormer: a small branch beside each block's MLP (Chen et al., NeurIPS 2022)."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError
from vpt.methods.adapter import Bottleneck
from vpt.methods.base import Injection, Method, Wrapper


@dataclass(frozen=True)
class AdaptFormer(Method, name="adaptformer", optimizer="adamw", learning_rate=2e-3, identity_at_init=True):
    """x + mlp(norm(x)) + scale * up(dropout(relu(down(x)))), as the authors' code computes it.

    bottleneck: inner width of the branch. scale: factor of the branch (0.1 in the AdaptFormer paper). dropout: inside
    the branch, in training. before_norm: the branch reads what the norm before the MLP reads; False, as the authors'
    figure has it and as blocks of an unknown layout do, reads the MLP's input.
    """

    bottleneck: int = 64
    scale: float = 0.1
    dropout: float = 0.1
    before_norm: bool = True

    def __post_init__(self) -> None:
        if self.bottleneck < 1:
            raise SpecError(f"bottleneck is {self.bottleneck}; it must be at least 1")
        if self.scale == 0:
            raise SpecError("scale is 0; the branch would never speak")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout is {self.dropout}; it must be at least 0 and below 1")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan a parallel branch beside the MLP of every block."""
        wrappers: dict[str, Wrapper] = {}
        for path, width in layout.block_mlps(trunk).items():
            activation = nn.Sequential(nn.ReLU(), nn.Dropout(self.dropout))
            branch = Bottleneck(width, self.bottleneck, activation)
            wrappers[path] = partial(_ParallelAdapter, branch=branch, scale=self.scale)
        for path in layout.blocks if self.before_norm else ():
            block_layout = layout.block_layout(trunk.get_submodule(path))
            if block_layout is not None and f"{path}.{block_layout.mlp}" in wrappers:
                wrappers[f"{path}.{block_layout.norm2}"] = _NormWithInput
        return Injection(wrappers=wrappers)


class _NormWithInput(nn.Module):
    """Replacement of the norm before an MLP, which returns its output and its input."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.norm(x), x


class _ParallelAdapter(nn.Module):
    """Replacement of an MLP, with a parallel branch."""

    def __init__(self, mlp: nn.Module, branch: Bottleneck, scale: float) -> None:
        super().__init__()
        self.mlp = mlp
        self.branch = branch
        self.scale = scale

    def forward(self, x: Tensor | tuple[Tensor, Tensor], *context: Any) -> Tensor:
        normed, before = x if isinstance(x, tuple) else (x, x)
        return self.mlp(normed, *context) + self.scale * self.branch(before)  # type: ignore[no-any-return]
