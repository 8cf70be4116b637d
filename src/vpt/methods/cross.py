"""Cross visual prompt tuning (CVPT, Huang et al., ICCV 2025): tokens attend to prompts after their self-attention.

The prompts have a softmax of their own, so that many prompts do not take attention away from the patches.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vpt.attention.forward_state import ForwardState
from vpt.attention.joint_attention import weigh_values
from vpt.attention.projections import expand_kv_groups, project, project_output
from vpt.backbones.layout import BackboneLayout
from vpt.methods.base import Injection, Method, Wrapper
from vpt.methods.depth import block_range
from vpt.methods.kv_prompts import prompted_block, require_kv_prompts
from vpt.methods.prompts import make_prompts
from vpt.methods.references import refer
from vpt.methods.vpt import VPT


@dataclass(frozen=True)
class Cross(Method, name="cross", optimizer="adamw", learning_rate=0.02):
    """Prompts that tokens read in a second attention step, which reuses the frozen weights of self-attention (CVPT).

    x += W_o softmax(q(x) k(P)^T / sqrt(d)) v(P) in each block.

    Args:
        length: Number of prompts p of a block. Default: 10.
        depth: "deep" for every block, or a range such as "3-6". Default: "deep".
        dropout: Dropout of the prompts in training. Default: 0.1.
        gate: Multiply the sum by a learned scalar per block that begins at 0, so that training begins at the frozen
            backbone. Default: False.
    """

    length: int = 10
    depth: str = "deep"
    dropout: float = 0.1
    gate: bool = False

    # The tokens have attended to the prompts before another method sees what enters the norm.
    wraps_last: ClassVar[bool] = True

    def __post_init__(self) -> None:
        VPT(length=self.length, depth=self.depth, dropout=self.dropout)  # the same bounds, the same words
        object.__setattr__(self, "identity_at_init", self.gate)  # the dataclass is frozen

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan attention to prompts between self-attention and MLP of each block."""
        require_kv_prompts(trunk, layout)
        first, last = block_range(self.depth, len(layout.blocks))
        widths = layout.block_widths(trunk)[first : last + 1]
        prompts = make_prompts(widths, layout, self.length, dropout=self.dropout)
        wrappers: dict[str, Wrapper] = {}
        for index, block_prompts in enumerate(prompts, first):
            path, (block, names) = layout.blocks[index], prompted_block(trunk, layout, index)
            cross = _CrossAttention(getattr(block, names.attention), block_prompts, gate=self.gate)
            wrappers[f"{path}.{names.norm2}"] = partial(_CrossNorm, cross=cross)
            wrappers[f"{path}.{names.drop2}"] = partial(_CrossResidual, cross=cross)
        return Injection(modules={"cross_prompts": nn.ModuleList(prompts)}, wrappers=wrappers)


class _CrossAttention(nn.Module):
    """Attention of tokens to prompts, with the weights of a self-attention."""

    attention: nn.Module
    prompts: nn.Module

    def __init__(self, attention: nn.Module, prompts: nn.Module, *, gate: bool) -> None:
        super().__init__()
        refer(self, attention=attention, prompts=prompts)
        self.gate: nn.Parameter | None = nn.Parameter(torch.zeros(())) if gate else None
        self.change: ForwardState[Tensor] = ForwardState()  # from the norm to the residual

    def forward(self, x: Tensor) -> Tensor:
        attention: Any = self.attention
        (q,) = project(attention, x, "q", hooks=False)  # they are for self-attention
        prompts = self.prompts(x.shape[0]).to(x.dtype)
        k, v = expand_kv_groups(attention, *project(attention, prompts, "kv", hooks=False))
        k, v = (each.expand(x.shape[0], -1, -1, -1) for each in (k, v))
        fused = getattr(attention, "fused_attn", True)
        weighted = weigh_values(q, k, v, scale=attention.scale, fused=fused)
        out = project_output(attention, x, weighted, hooks=False)
        return out if self.gate is None else self.gate.to(out.dtype) * out


class _CrossNorm(nn.Module):
    """Replacement of the second norm: it normalizes what the tokens are after they attended to the prompts."""

    def __init__(self, norm: nn.Module, cross: _CrossAttention) -> None:
        super().__init__()
        self.norm = norm
        self.cross = cross

    def forward(self, x: Tensor) -> Tensor:
        change = self.cross(x)
        self.cross.change.set(change)
        return self.norm(x + change)  # type: ignore[no-any-return]


class _CrossResidual(nn.Module):
    """Replacement of the last step of the MLP's branch: it adds the change to the residual stream."""

    cross: _CrossAttention

    def __init__(self, drop_path: nn.Module, cross: _CrossAttention) -> None:
        super().__init__()
        self.drop_path = drop_path
        refer(self, cross=cross)

    def forward(self, branch: Tensor) -> Tensor:
        return self.drop_path(branch) + self.cross.change.pop()  # type: ignore[no-any-return]
