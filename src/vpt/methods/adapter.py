"""Adapters: a bottleneck after each block's MLP (Houlsby et al., 2019; paper, section 4, baseline "Adapter").

With `adapter(position=post, init=houlsby, scale=channel, drop_path=0.1)` it is Adapter+ (Steitz and Roth, CVPR 2024).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth  # type: ignore[import-untyped]

from vpt.backbones.layout import BackboneLayout
from vpt.core.spec import later_field
from vpt.errors import SpecError, UnsupportedError
from vpt.methods.base import Injection, Method

AdapterInit = Literal["identity", "zero", "houlsby"]


class Bottleneck(nn.Module):
    """Linear d -> d/r, a nonlinearity, Linear d/r -> d. Begins at zero through its second layer, and so can learn."""

    def __init__(
        self,
        width: int,
        hidden_dim: int,
        activation: nn.Module,
        init: Literal["identity", "zero", "houlsby"] = "identity",
    ) -> None:
        super().__init__()
        self.down: nn.Linear = nn.Linear(width, hidden_dim)
        self.activation = activation
        self.up: nn.Linear = nn.Linear(hidden_dim, width)
        for weight in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(weight)
        if init == "houlsby":
            for layer in (self.down, self.up):
                nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
        elif init == "zero":
            nn.init.zeros_(self.down.weight)
        else:
            nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the bottleneck for x (..., d), in the shape and dtype of x."""
        hidden = self.activation(_linear_in_input_dtype(x, self.down))
        return _linear_in_input_dtype(hidden, self.up)


def _linear_in_input_dtype(x: Tensor, layer: nn.Linear) -> Tensor:
    """The layer, rounded to what comes in: a frozen backbone may be in bf16."""
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


@dataclass(frozen=True)
class Adapter(Method, name="adapter", optimizer="adamw", learning_rate=2e-3, identity_at_init=True):
    """A bottleneck MLP after the MLP of each block: d -> d/r -> GELU -> d with a skip, before the residual.

    Args:
        reduction: Ratio r of the width d to that of the bottleneck. Default: 8.
        init: "identity" begins as the frozen backbone and learns; "zero" sets both projections to zero as the paper's
            code does, so that of every adapter only the last bias ever changes; "houlsby" draws both from a normal
            distribution of width 0.01, cut off at 0.02. Default: "identity".
        position: After the "mlp", or "post", after the whole block. Default: "mlp".
        scale: "channel" multiplies the output by a learned vector (d,). Default: "none".
        drop_path: Probability that a sample skips an adapter in training. Default: 0.
    """

    reduction: int = 8
    init: AdapterInit = "identity"
    position: Literal["mlp", "post"] = later_field("mlp")
    scale: Literal["none", "channel"] = later_field("none")
    drop_path: float = later_field(0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity_at_init", self.init != "houlsby")  # the dataclass is frozen
        if not 0 <= self.drop_path < 1:
            raise SpecError(f"drop_path is {self.drop_path}; it must be at least 0 and below 1")
        if self.reduction < 1:
            raise SpecError(f"reduction is {self.reduction}; it must be at least 1")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan a bottleneck in every block; raise UnsupportedError if it is narrower than `reduction`."""
        wrappers = {}
        for path, width in self._places(trunk, layout).items():
            if self.reduction > width:
                raise UnsupportedError(
                    f"reduction is {self.reduction}, but {path} has only {width} channels; give one of at most {width}"
                )
            # Drawn here, not when it is injected: terms of a sum are drawn in their order.
            bottleneck = Bottleneck(width, width // self.reduction, nn.GELU(), self.init)
            wrappers[path] = partial(_Adapted, method=self, bottleneck=bottleneck)
        return Injection(wrappers=wrappers)

    def _places(self, trunk: nn.Module, layout: BackboneLayout) -> dict[str, int]:
        """Return the modules that adapters follow, with their channels."""
        if self.position == "mlp":
            return layout.block_mlps(trunk)
        if not layout.has_token_blocks:
            raise UnsupportedError(
                f"position=post puts adapters behind transformer blocks, and {type(trunk).__name__} has none that are "
                "known; write position=mlp"
            )
        return dict(zip(layout.blocks, layout.block_widths(trunk), strict=True))


class _Adapted(nn.Module):
    """Replacement of an MLP or of a block, followed by a bottleneck with a skip."""

    def __init__(self, module: nn.Module, method: Adapter, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.mlp = module
        self.adapter = bottleneck
        width = bottleneck.up.out_features
        self.scale: nn.Parameter | None = nn.Parameter(torch.ones(width)) if method.scale == "channel" else None
        self.drop_path = StochasticDepth(method.drop_path, "row") if method.drop_path else nn.Identity()

    def forward(self, x: Tensor, *args: Any, **context: Any) -> Tensor:
        x = self.mlp(x, *args, **context)
        if not isinstance(x, Tensor):  # shallow prompts of Swin travel beside its grid
            raise UnsupportedError("its blocks return prompts beside the image; write position=mlp")
        change = self.drop_path(self.adapter(x))
        return x + (change if self.scale is None else change * self.scale.to(x.dtype))  # type: ignore[no-any-return]
