"""Attention to prompts beside attention to tokens: one softmax over both, without ever joining their keys.

Two softmaxes over disjoint keys are joined exactly by their log-sum-exp. So the prompts' keys and values, which are
the same for all images of a batch and for all windows of an image, are neither copied per image nor kept per image
for the backward pass, and all queries of the batch meet them in one long row. Backward, each part needs only the
joint output and the joint log-sum-exp (Dao et al., FlashAttention, 2022; Liu et al., Ring Attention, 2023).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend_beside(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prompt_k: Tensor,
    prompt_v: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(scale * q [k, prompt_k]^T + [bias, 0]) [v, prompt_v].

    q: (rows, heads, n, d). k, v: (rows, heads, m, d). prompt_k, prompt_v: (b, heads, p, d), where each of the b
    serves rows / b rows in turn. bias: broadcast to (rows, heads, n, m). dropout: of the weights.
    Returns (rows, heads, n, d).
    """
    # Under autocast norms and scales give fp32, and linear layers bf16.
    q, k, prompt_k, prompt_v = (x.to(v.dtype) for x in (q, k, prompt_k, prompt_v))
    if bias is not None:
        bias = bias.to(v.dtype).reshape(*[1] * (4 - bias.dim()), *bias.shape)
    learned = bias is not None and bias.requires_grad
    if q.device.type == "cpu" and dropout == 0 and not learned and q.shape[-1] == v.shape[-1]:
        return _Apart.apply(q, k, v, prompt_k, prompt_v, scale, bias)  # type: ignore[no-any-return]
    rows, p = len(q), prompt_k.shape[2]
    k, v = torch.cat([k, copied(prompt_k, rows)], dim=2), torch.cat([v, copied(prompt_v, rows)], dim=2)
    bias = None if bias is None else F.pad(bias, (0, p))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)


def copied(prompts: Tensor, rows: int) -> Tensor:
    """(b, heads, p, d) -> (rows, heads, p, d): each of the b as often as it has rows; a view where b is 1."""
    if len(prompts) == 1:
        return prompts.expand(rows, -1, -1, -1)
    return prompts.repeat_interleave(rows // len(prompts), dim=0)


class _Apart(torch.autograd.Function):
    """Both parts by torch's flash attention for CPUs, joined by their log-sum-exp."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, prompt_k: Tensor, prompt_v: Tensor, scale: float, bias: Tensor | None
    ) -> Tensor:
        rows, b = len(q), len(prompt_k)
        out, lse = _FORWARD(q, k, v, attn_mask=bias, scale=scale)
        of_prompts, prompt_lse = (
            _regrouped(x, rows) for x in _FORWARD(_regrouped(q, b), prompt_k, prompt_v, scale=scale)
        )
        share = (lse - prompt_lse).sigmoid()  # of all weight, what the tokens have
        out = of_prompts.lerp_(out, share.unsqueeze(-1).to(out.dtype))
        ctx.save_for_backward(q, k, v, prompt_k, prompt_v, out, torch.logaddexp(lse, prompt_lse), bias)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        q, k, v, prompt_k, prompt_v, out, lse, bias = ctx.saved_tensors
        b = len(prompt_k)
        joined = (_regrouped(x, b) for x in (gradient, q, out, lse))
        long_gradient, long_q, long_out, long_lse = joined
        dq, dk_prompt, dv_prompt = _BACKWARD(
            long_gradient, long_q, prompt_k, prompt_v, long_out, long_lse, 0.0, False, scale=ctx.scale
        )
        dk = dv = None
        if any(ctx.needs_input_grad[:3]):  # not in the first block: nothing before it learns
            own, dk, dv = _BACKWARD(gradient, q, k, v, out, lse, 0.0, False, attn_mask=bias, scale=ctx.scale)
            dq = own.add_(_regrouped(dq, len(q)))
        else:
            dq = None
        return dq, dk, dv, dk_prompt, dv_prompt, None, None


def _regrouped(x: Tensor, rows: int) -> Tensor:
    """(a, heads, n, ...) -> (rows, heads, a / rows * n, ...): the same tokens in the same order.

    A view, as the heads lie side by side within a token.
    """
    x = x.transpose(1, 2)
    return x.reshape(rows, -1, *x.shape[2:]).transpose(1, 2)
