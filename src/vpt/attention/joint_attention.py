"""Attention to prompts beside attention to tokens: one softmax over both, without ever joining their keys.

Two softmaxes over disjoint keys are joined exactly by their log-sum-exp. So the prompts' keys and values, which are
the same for all images of a batch and for all windows of an image, are neither copied per image nor kept per image
for the backward pass, and all queries of the batch meet them in one long row. Backward, each part needs only the
joint output and the joint log-sum-exp (Dao et al., FlashAttention, 2022; Liu et al., Ring Attention, 2023).
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vpt.attention.projections import expand_kv_groups, project

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
# torch 2.6 does not tell an export from a compilation.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


class KeyValues(NamedTuple):
    """Prompts that are keys and values themselves, after projection and norms, instead of tokens.

    Attributes:
        keys: Keys (heads, p, d/heads) or (batch, heads, p, d/heads).
        values: Values of the same shape.
    """

    keys: Tensor
    values: Tensor


class GatedPrompts(NamedTuple):
    """Prompt tokens with a softmax and a gate of their own.

    The output of attention is softmax(scores of tokens) values + gate * softmax(scores of prompts) prompt values
    (LLaMA-Adapter, Zhang et al., 2023). A gate of 0 leaves the frozen attention as it is.

    Attributes:
        tokens: Prompts after the block's norm, (p, d) or (batch, p, d), or their keys and values.
        gate: Factor of the prompts: a scalar, one per head (heads,), or one per sample (batch, 1 or heads).
    """

    tokens: Tensor | KeyValues
    gate: Tensor


def keys_and_values(attention: Any, prompts: Tensor | KeyValues) -> list[Tensor]:
    """Return the keys and the values of prompts.

    Args:
        attention: The attention module.
        prompts: Tokens (p, d) or (batch, p, d), already normalized, or `KeyValues`.

    Returns:
        Keys and values, (1 or batch, heads, p, d/heads).
    """
    if isinstance(prompts, KeyValues):
        return [each if each.dim() == 4 else each.unsqueeze(0) for each in prompts]
    return expand_kv_groups(attention, *project(attention, prompts, "kv", hooks=False))


def attend_with_prompts(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prompt_k: Tensor,
    prompt_v: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    gate: Tensor | None = None,
    fused: bool = True,
) -> Tensor:
    """Return softmax(scale * q [k, prompt_k]^T + [bias, 0]) [v, prompt_v].

    With a gate, the prompts have a softmax of their own:
    softmax(scale * q k^T + bias) v + gate * softmax(scale * q prompt_k^T) prompt_v.

    Args:
        q: Queries (rows, heads, n, d).
        k: Keys (rows, heads, m, d).
        v: Values (rows, heads, m, d).
        prompt_k: Keys of prompts (b, heads, p, d), where each of the b serves rows / b rows in turn.
        prompt_v: Values of prompts (b, heads, p, d).
        scale: Factor of the scores.
        bias: Added to the scores of tokens; broadcast to (rows, heads, n, m). Default: none.
        dropout: Dropout of the attention weights, 0 to 1. Default: 0.
        gate: Factor of the prompts, see `GatedPrompts`. Default: one softmax over tokens and prompts.
        fused: False forms the attention weights, as timm does after `set_fused_attn(False)`. Default: True.

    Returns:
        The output (rows, heads, n, d).
    """
    # Under autocast norms and scales give fp32, and linear layers bf16.
    q, k, prompt_k, prompt_v = (x.to(v.dtype) for x in (q, k, prompt_k, prompt_v))
    if bias is not None:
        bias = bias.to(v.dtype).reshape(*[1] * (4 - bias.dim()), *bias.shape)
    rows = q.shape[0]  # len() would fix the batch size of an exported graph
    if gate is not None:
        out = weigh_values(q, k, v, scale=scale, bias=bias, dropout=dropout, fused=fused)
        grouped_q = _regroup(q, prompt_k.shape[0])
        prompt_out = weigh_values(grouped_q, prompt_k, prompt_v, scale=scale, dropout=dropout, fused=fused)
        return out + expand_gate(gate, rows).to(out.dtype) * _regroup(prompt_out, rows)
    fits_kernel = q.device.type == "cpu" and dropout == 0 and fused and q.shape[-1] == v.shape[-1]
    if fits_kernel and not (bias is not None and bias.requires_grad) and _allows_cpu_kernel_here():
        return _JointAttention.apply(q, k, v, prompt_k, prompt_v, scale, bias)  # type: ignore[no-any-return]
    return _attend_concatenated(q, k, v, prompt_k, prompt_v, scale=scale, bias=bias, dropout=dropout, fused=fused)


def _allows_cpu_kernel() -> bool:
    """Return True where torch itself would run flash attention, and nobody transforms or records the graph.

    The kernel below has a derivative of its own, which functorch cannot batch, and which no exported graph knows.
    """
    allowed: bool = torch.backends.cuda.flash_sdp_enabled()  # despite its name the switch of CPUs, too
    tracing: bool = torch._C._get_tracing_state() is not None
    return allowed and not (tracing or _is_exporting() or torch._C._are_functorch_transforms_active())


_allows_cpu_kernel_here = torch.compiler.assume_constant_result(_allows_cpu_kernel)  # one graph when compiled


def _attend_concatenated(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prompt_k: Tensor,
    prompt_v: Tensor,
    *,
    scale: float,
    bias: Tensor | None,
    dropout: float = 0.0,
    fused: bool = True,
) -> Tensor:
    """Return the output of attention to tokens and prompts side by side, by torch's own operations."""
    bias = None if bias is None else F.pad(bias, (0, prompt_k.shape[2]))
    k, v = (torch.cat([x, _expand_prompts(own, q.shape[0])], dim=2) for x, own in ((k, prompt_k), (v, prompt_v)))
    return weigh_values(q, k, v, scale=scale, bias=bias, dropout=dropout, fused=fused)


def weigh_values(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    fused: bool = True,
) -> Tensor:
    """Return softmax(scale * q k^T + bias) v.

    Args:
        q: Queries (rows, heads, n, d).
        k: Keys (rows, heads, m, d).
        v: Values (rows, heads, m, d).
        scale: Factor of the scores.
        bias: Added to the scores; broadcast to (rows, heads, n, m). Default: none.
        dropout: Dropout of the attention weights, 0 to 1. Default: 0.
        fused: False forms the attention weights, as timm does after `set_fused_attn(False)`. Default: True.

    Returns:
        The output (rows, heads, n, d).
    """
    if fused:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)
    scores = (q * scale) @ k.transpose(-2, -1)
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return F.dropout(weights, dropout) @ v


def _expand_prompts(prompts: Tensor, rows: int) -> Tensor:
    """Repeat prompts (b, heads, p, d) for the rows that they serve; a view if b is 1."""
    b = prompts.shape[0]
    if b == 1:
        return prompts.expand(rows, -1, -1, -1)
    return prompts if b == rows else prompts.repeat_interleave(rows // b, dim=0)


def expand_gate(gate: Tensor, rows: int) -> Tensor:
    """Return a gate in the shape of attention outputs.

    Args:
        gate: A scalar, (heads,), or (b, 1 or heads) where each of the b serves rows / b rows in turn.
        rows: Number of rows.

    Returns:
        The gate, broadcast to (rows, heads, n, d).
    """
    if gate.dim() == 2 and len(gate) > 1:
        gate = gate.repeat_interleave(rows // len(gate), dim=0)
    return gate[..., None, None]


class _JointAttention(torch.autograd.Function):
    """Both parts by torch's flash attention for CPUs, joined by their log-sum-exp."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, prompt_k: Tensor, prompt_v: Tensor, scale: float, bias: Tensor | None
    ) -> Tensor:
        rows, b = len(q), len(prompt_k)
        out, lse = _FORWARD(q, k, v, attn_mask=bias, scale=scale)
        prompt_out, prompt_lse = (_regroup(x, rows) for x in _FORWARD(_regroup(q, b), prompt_k, prompt_v, scale=scale))
        token_weight = (lse - prompt_lse).sigmoid()  # of all weight, what the tokens have
        out = prompt_out.lerp_(out, token_weight.unsqueeze(-1).to(out.dtype))
        ctx.save_for_backward(q, k, v, prompt_k, prompt_v, out, torch.logaddexp(lse, prompt_lse), bias)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_out,) = grad_outputs
        q, k, v, prompt_k, prompt_v, out, lse, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # this gradient is to be differentiated, which torch's kernel cannot
            inputs = (q, k, v, prompt_k, prompt_v)
            with sdpa_kernel(SDPBackend.MATH):
                out = _attend_concatenated(*inputs, scale=ctx.scale, bias=bias)
                needed = [x for x, needs_grad in zip(inputs, ctx.needs_input_grad, strict=False) if needs_grad]
                found = iter(torch.autograd.grad(out, needed, grad_out, create_graph=True))
            return *(next(found) if needs_grad else None for needs_grad in ctx.needs_input_grad[:5]), None, None
        grouped_grad, grouped_q, *saved = (_regroup(x, len(prompt_k)) for x in (grad_out, q, out, lse))
        dq_prompt, dk_prompt, dv_prompt = _BACKWARD(
            grouped_grad, grouped_q, prompt_k, prompt_v, *saved, 0.0, False, scale=ctx.scale
        )
        if not any(ctx.needs_input_grad[:3]):  # in the first block: nothing before it learns
            return None, None, None, dk_prompt, dv_prompt, None, None
        dq, dk, dv = _BACKWARD(grad_out, q, k, v, out, lse, 0.0, False, attn_mask=bias, scale=ctx.scale)
        return dq.add_(_regroup(dq_prompt, len(q))), dk, dv, dk_prompt, dv_prompt, None, None


def _regroup(x: Tensor, rows: int) -> Tensor:
    """(a, heads, n, ...) -> (rows, heads, a / rows * n, ...): the same tokens in the same order.

    A view, as the heads lie side by side within a token.
    """
    x = x.transpose(1, 2)
    return x.reshape(rows, -1, *x.shape[2:]).transpose(1, 2)
