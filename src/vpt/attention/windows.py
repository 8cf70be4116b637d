"""Attention in windows (Swin) with prompts that every window sees, projected once per batch.

The textbook copies the prompts into each window of each image. Here their keys and values exist once: the queries of
all windows meet them in one long row, beside the attention within each window.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.attention.joint_attention import attend_beside


def attend_windows(
    attention: nn.Module, x: Tensor, *, mask: Tensor | None = None, extra: Tensor | None = None, answer: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Swin's attention, exactly as its own forward computes it, with prompts beside the tokens of each window.

    x: (batch * windows, n, d), already normalised. mask: (windows, n, n). extra: prompts (p, d) or (batch, p, d),
    already normalised; they have neither relative bias nor mask. answer: compute the prompts' own outputs too
    (then extra is (batch, p, d)): the mean over the windows of each image.
    Returns (batch * windows, n, d), and (batch, p, d) or None.
    """
    part: Any = attention
    n = x.shape[1]
    q, k, v = _project(part, x)
    bias = part._get_rel_pos_bias()
    if mask is not None:
        windows = bias + mask.unsqueeze(1)  # (windows, heads, n, n)
        bias = windows.expand(len(x) // len(mask), -1, -1, -1, -1).flatten(0, 1)
    dropout = part.attn_drop.p if part.training else 0.0
    if extra is None:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=part.scale)
        return _out(part, out), None

    prompt_q, prompt_k, prompt_v = _project(part, extra if extra.dim() == 3 else extra.unsqueeze(0))
    out = attend_beside(q, k, v, prompt_k, prompt_v, scale=part.scale, bias=bias, dropout=dropout)
    out = _out(part, out)
    if not answer:
        return out, None

    batch = len(prompt_q)
    ask = prompt_q * part.scale
    k, v = k.unflatten(0, (batch, -1)), v.unflatten(0, (batch, -1))  # (batch, windows, heads, n, d/heads)
    of_tokens = ask.unsqueeze(1) @ k.transpose(-2, -1)
    of_prompts = (ask @ prompt_k.transpose(-2, -1)).unsqueeze(1).expand(-1, k.shape[1], -1, -1, -1)
    weights = part.attn_drop(torch.cat([of_tokens, of_prompts], dim=-1).softmax(-1))
    answers = weights[..., :n] @ v + weights[..., n:] @ prompt_v.unsqueeze(1)
    return out, _out(part, answers.mean(dim=1))


class WindowAttend(nn.Module):
    """Stands where Swin's window attention stood.

    extra: a module that maps x (batch * windows, n, d) to prompts, which serve as keys and values only.
    """

    def __init__(self, attention: nn.Module, extra: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.extra = extra

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return attend_windows(self.attention, x, mask=mask, extra=self.extra(x))[0]


class WindowCarry(nn.Module):
    """Stands where Swin's window attention stood, where prompts run through the block as tokens.

    The block that this attention belongs to has no place for them in its own forward, so they come and go beside it:
    `come` before the block runs, `go` after.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self._prompts: Tensor | None = None

    def come(self, prompts: Tensor) -> None:
        """Take prompts (batch, p, d), already normalised, for the next call."""
        self._prompts = prompts

    def go(self) -> Tensor:
        """Hand over what attention answered to them, (batch, p, d), and forget it."""
        answer, self._prompts = self._prompts, None
        assert answer is not None
        return answer

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        out, self._prompts = attend_windows(self.attention, x, mask=mask, extra=self._prompts, answer=True)
        return out


@torch.no_grad()
def explains_windows(attention: nn.Module, x: Tensor, mask: Tensor | None, theirs: Tensor) -> bool:
    """Whether `attend_windows` computes what this attention answered to a real input of it."""
    try:
        ours, _ = attend_windows(attention, x, mask=mask)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False
    tolerance = 1e-4 if x.dtype == torch.float32 else 3e-2
    return ours.shape == theirs.shape and (ours.is_meta or torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance))


def _project(part: Any, x: Tensor) -> tuple[Tensor, ...]:
    """x (b, n, d) -> q, k, v, each (b, heads, n, d/heads)."""
    joint: Tensor = part.qkv(x)
    q, k, v = joint.unflatten(-1, (3, part.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def _out(part: Any, x: Tensor) -> Tensor:
    """(b, heads, n, d/heads) -> (b, n, d), through the output projection."""
    return part.proj_drop(part.proj(x.transpose(1, 2).flatten(2)))  # type: ignore[no-any-return]
