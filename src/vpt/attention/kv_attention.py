"""Attention with more keys than queries: what makes visual prompts cost nothing.

`attend` reads the parts of timm's attention (`projections.py`) and computes the very same function, with three freedoms
the original lacks:

- `kv_prompts`: tokens that serve as keys and values only. In VPT-deep the output of a prompt is never read, so a
  prompt needs neither query nor output (first identity). `GatedPrompts` have a softmax and a gate of their own.
- `num_queries`: compute the output for the first few tokens only. Where the head reads CLS alone, so does the
  last block (second identity). So few queries need no keys and values either (`absorbed.py`).
- `num_positionless`: the number of tokens after the prefix that have no position in the image, so neither rotary
  position nor relative bias, such as VPT-shallow's prompts.

`attend` is used only after `detect_layout` has compared it with the module's own forward on the module's own input.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vpt.attention.absorbed import attend_absorbed
from vpt.attention.joint_attention import (
    GatedPrompts,
    KeyValues,
    attend_with_prompts,
    expand_gate,
    keys_and_values,
    weigh_values,
)
from vpt.attention.projections import expand_kv_groups, fused_qkv, project, project_output, rotate, score_bias

KVPrompts = Tensor | GatedPrompts | KeyValues | None
# Numbers of samples in turn, and the prompts of those: (p, d), (samples, p, d), gated ones, or None.
PromptGroups = list[tuple[int, KVPrompts]]


def attend(
    module: nn.Module,
    x: Tensor,
    *,
    kv_prompts: KVPrompts = None,
    num_queries: int | None = None,
    num_positionless: int = 0,
    **context: Any,
) -> Tensor:
    """Compute the self-attention of a timm module exactly as its own forward does, plus the freedoms above.

    Args:
        module: The attention module.
        x: Tokens (batch, tokens, d), already normalized.
        kv_prompts: Prompts (p, d) or (batch, p, d), already normalized, or `GatedPrompts`. Default: none.
        num_queries: Number of tokens, from the first, whose output is computed. Default: all.
        num_positionless: Number of tokens after the prefix that have no position in the image. Default: 0.
        **context: Further arguments of the block: `rope`, `attn_mask`, `shared_rel_pos_bias`.

    Returns:
        The output (batch, `num_queries`, d).
    """
    attention: Any = module
    kv_prompts, gate = kv_prompts if isinstance(kv_prompts, GatedPrompts) else (kv_prompts, None)
    dropout = attention.attn_drop.p if attention.training else 0.0
    may_absorb = num_queries is not None and dropout == 0 and _can_absorb(attention, context)
    if may_absorb and not isinstance(kv_prompts, KeyValues):
        weight, qkv_bias = fused_qkv(attention)
        _, weight_k, weight_v = weight.chunk(3)
        weights = (weight_k, weight_v, None if qkv_bias is None else qkv_bias.chunk(3)[2])
        (q,), bias = project(attention, x[:, :num_queries], "q"), score_bias(attention, context, num_positionless)
        bias = None if bias is None else bias[..., :num_queries, :]
        joint_prompts = kv_prompts if gate is None else None
        out = attend_absorbed(q, x, joint_prompts, *weights, scale=attention.scale, bias=bias)
        if gate is not None and kv_prompts is not None:
            prompt_x = kv_prompts if kv_prompts.dim() == 3 else kv_prompts.unsqueeze(0)
            prompt_out = attend_absorbed(q, prompt_x, None, *weights, scale=attention.scale)
            out = out + expand_gate(gate, out.shape[0]).to(out.dtype) * prompt_out
        return project_output(attention, x, out)

    q, k, v, bias = prepare_qkv(attention, x, num_queries, num_positionless, context)
    fused = getattr(attention, "fused_attn", True)
    if kv_prompts is None:
        out = weigh_values(q, k, v, scale=attention.scale, bias=bias, dropout=dropout, fused=fused)
    else:
        prompt_k, prompt_v = keys_and_values(attention, kv_prompts)
        out = attend_with_prompts(
            q, k, v, prompt_k, prompt_v, scale=attention.scale, bias=bias, dropout=dropout, gate=gate, fused=fused
        )
    return project_output(attention, x, out)


class KVAttention(nn.Module):
    """Replacement of an attention module that computes its output with `attend`.

    Args:
        attention: The attention module.
        kv_prompts: Module that maps the normalized tokens of the block, (batch, tokens, d), to prompts of their dtype:
            (p, d), (batch, p, d), `GatedPrompts`, `KeyValues`, or `PromptGroups` of the batch. They may depend on the
            tokens. Default: none.
        num_positionless: Number of tokens after the prefix that have no position in the image. Default: 0.

    Attributes:
        num_queries: Number of tokens, from the first, whose output is computed; None, as at first, for all.
    """

    def __init__(self, attention: nn.Module, *, kv_prompts: nn.Module | None = None, num_positionless: int = 0) -> None:
        super().__init__()
        self.attention = attention
        self.kv_prompts = kv_prompts
        self.num_queries: int | None = None
        self.num_positionless = num_positionless

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        """Return the output of attention.

        Args:
            x: Tokens (batch, tokens, d), already normalized.
            **context: Further arguments of the block, see `attend`.

        Returns:
            The output (batch, `num_queries`, d).
        """
        kv_prompts: KVPrompts | PromptGroups = None if self.kv_prompts is None else self.kv_prompts(x)
        options = {**context, "num_queries": self.num_queries, "num_positionless": self.num_positionless}
        if not isinstance(kv_prompts, list):
            return attend(self.attention, x, kv_prompts=kv_prompts, **options)
        chunks = zip(x.split([samples for samples, _ in kv_prompts]), kv_prompts, strict=True)
        outputs = [attend(self.attention, chunk, kv_prompts=prompts, **options) for chunk, (_, prompts) in chunks]
        return torch.cat(outputs)

    def attention_weights(self, x: Tensor, kv_prompts: KVPrompts = None, **context: Any) -> Tensor:
        """Return the attention weights of every token, also where `num_queries` limits the outputs.

        Args:
            x: Tokens (batch, tokens, d), already normalized.
            kv_prompts: Prompts of these tokens, as the module `kv_prompts` returned them. Default: they are made anew.
            **context: Further arguments of the block, see `attend`.

        Returns:
            Weights (batch, heads, tokens, tokens + p), prompts last. A row sums to 1; with `GatedPrompts` its tokens
            sum to 1 and its prompts to the gate.
        """
        attention: Any = self.attention
        q, k, _, bias = prepare_qkv(attention, x, None, self.num_positionless, context)
        scores: Tensor = attention.scale * q @ k.transpose(-2, -1)
        if bias is not None:
            scores = scores + bias
        if self.kv_prompts is None:
            return scores.softmax(-1)
        prompts = self.kv_prompts(x) if kv_prompts is None else kv_prompts
        tokens, gate = prompts if isinstance(prompts, GatedPrompts) else (prompts, None)
        prompt_k, _ = keys_and_values(attention, tokens)
        prompt_scores = attention.scale * q @ prompt_k.transpose(-2, -1)
        if gate is None:
            return torch.cat([scores, prompt_scores], dim=-1).softmax(-1)
        prompt_weights = expand_gate(gate, q.shape[0]) * prompt_scores.softmax(-1)
        return torch.cat([scores.softmax(-1), prompt_weights], dim=-1)


def prepare_qkv(
    attention: Any, x: Tensor, num_queries: int | None, num_positionless: int, context: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return queries, keys, values, and the bias that is added to the scores.

    Args:
        attention: The attention module.
        x: Tokens (batch, tokens, d), already normalized.
        num_queries: Number of tokens, from the first, whose output is computed, or None for all.
        num_positionless: Number of tokens after the prefix that have no position in the image.
        context: Further arguments of the block, see `attend`.

    Returns:
        Queries (batch, heads, num_outputs, d/heads), keys and values (batch, heads, tokens, d/heads), and the bias
        (..., num_outputs, tokens) or None.

    Raises:
        ValueError: The attention is causal.
    """
    if context.get("is_causal"):
        raise ValueError("causal attention reads tokens in order, which prompts do not have")
    rope, num_outputs = context.get("rope"), x.shape[1] if num_queries is None else num_queries
    if num_outputs == x.shape[1] or _has_hooks(attention):
        q, k, v = project(attention, x, "qkv")
        q = q[:, :, :num_outputs]
    else:
        (q,), (k, v) = project(attention, x[:, :num_outputs], "q"), project(attention, x, "kv")
    if rope is not None:
        k = rotate(attention, k, rope, num_positionless).type_as(v)
        if num_outputs == x.shape[1]:  # else they are those of prefix tokens, which have no position
            q = rotate(attention, q, rope, num_positionless)
        q = q.type_as(v)
    k, v = expand_kv_groups(attention, k, v)
    bias = score_bias(attention, context, num_positionless)
    return q, k, v, None if bias is None else bias[..., :num_outputs, :]


def _can_absorb(attention: Any, context: dict[str, Any]) -> bool:
    """Return whether keys are a linear function of the tokens, and no hook waits for the layers that form them."""
    unnormalized = isinstance(getattr(attention, "k_norm", None) or nn.Identity(), nn.Identity)
    fused = getattr(attention, "qkv", None) is not None and getattr(attention, "num_kv_groups", 1) == 1
    unrotated = context.get("rope") is None and not context.get("is_causal")
    return unnormalized and fused and unrotated and not _has_hooks(attention)


def _has_hooks(attention: Any) -> bool:
    """Return whether a hook waits for the projection or the norm of keys, which few queries need not run."""
    layers = (getattr(attention, name, None) for name in ("qkv", "k_norm"))
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(layer, kind, None) for layer in layers for kind in kinds)
