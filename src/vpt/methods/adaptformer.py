"""AdaptFormer: a small branch beside each block's MLP (Chen et al., NeurIPS 2022)."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from vpt.attention.forward_state import ForwardState, KeepInput
from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError
from vpt.methods.adapter import Bottleneck
from vpt.methods.base import Injection, Method, Wrapper


@dataclass(frozen=True)
class AdaptFormer(Method, name="adaptformer", optimizer="adamw", learning_rate=2e-3, identity_at_init=True):
    """A bottleneck branch in parallel with the MLP of each block.

    x + mlp(norm(x)) + scale * up(dropout(relu(down(x)))), as the authors' code computes it.

    Args:
        bottleneck: Inner width of the branch. Default: 64.
        scale: Factor of the branch. Default: 0.1, as in the AdaptFormer paper.
        dropout: Dropout inside the branch, in training. Default: 0.1.
        before_norm: The branch reads what the norm before the MLP reads; False, as the authors' figure has it and as
            blocks of an unknown layout do, reads the MLP's input. Default: True.
    """

    bottleneck: int = 64
    scale: float = 0.1
    dropout: float = 0.1
    before_norm: bool = True

    def __post_init__(self) -> None:
        if self.bottleneck < 1:
            raise SpecError(f"bottleneck is {self.bottleneck}; it must be at least 1")
        if self.scale == 0:
            raise SpecError("scale is 0, so that the branch has no effect; give another number, such as 0.1")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout is {self.dropout}; it must be at least 0 and below 1")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan a parallel branch beside the MLP of every block."""
        wrappers: dict[str, Wrapper] = {}
        branches: dict[str, _Branch] = {}
        for path, width in layout.block_mlps(trunk).items():
            activation = nn.Sequential(nn.ReLU(), nn.Dropout(self.dropout))
            branches[path] = branch = _Branch(width, self.bottleneck, activation)
            wrappers[path] = partial(_ParallelAdapter, branch=branch, scale=self.scale)
        for path in layout.blocks if self.before_norm else ():
            block_layout = layout.block_layout(trunk.get_submodule(path))
            if block_layout is not None and (mlp := f"{path}.{block_layout.mlp}") in branches:
                wrappers[f"{path}.{block_layout.norm2}"] = partial(KeepInput, state=branches[mlp].before)
        return Injection(wrappers=wrappers)


class _Branch(Bottleneck):
    """The parallel branch, with the input of the norm before the MLP."""

    def __init__(self, width: int, hidden_dim: int, activation: nn.Module) -> None:
        super().__init__(width, hidden_dim, activation)
        self.before: ForwardState[Tensor] = ForwardState()


class _ParallelAdapter(nn.Module):
    """Replacement of an MLP, with a parallel branch."""

    def __init__(self, mlp: nn.Module, branch: _Branch, scale: float) -> None:
        super().__init__()
        self.mlp = mlp
        self.branch = branch
        self.scale = scale

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        before = self.branch.before
        branch = self.branch(before.pop() if before.is_set else x)
        return self.mlp(x, *context) + self.scale * branch  # type: ignore[no-any-return]
