"""Attention with more keys than queries: what makes visual prompts cost nothing.

timm's four kinds of self-attention (ViT, EVA, EVA with rotary positions, BEiT) name their parts alike. `attend`
reads those parts and computes the very same function, with three freedoms the original lacks:

- `kv_prompts`: tokens that serve as keys and values only. In VPT-deep the output of a prompt is never read, so a
  prompt needs neither query nor output (first identity). `GatedPrompts` have a softmax and a gate of their own.
- `num_queries`: compute the answer for the first few tokens only. Where the head reads CLS alone, so does the
  last block (second identity). So few queries need no keys and values either (`absorbed.py`).
- `num_positionless`: the number of tokens after the prefix that have no position in the image, so neither rotary
  position nor relative bias, such as VPT-shallow's prompts.

`attend` is used only after `matches_reference` has compared it with the module's own forward on the module's own input.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn

from vpt.attention.absorbed import attend_absorbed
from vpt.attention.joint_attention import GatedPrompts, attend_with_prompts, expand_gate

KVPrompts = Tensor | GatedPrompts | None
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
    gate = None
    if isinstance(kv_prompts, GatedPrompts):
        kv_prompts, gate = kv_prompts
    dropout = attention.attn_drop.p if attention.training else 0.0
    if num_queries is not None and dropout == 0 and _can_absorb(attention, context):
        weight, qkv_bias = _fused_qkv(attention)
        assert weight is not None
        _, weight_k, weight_v = weight.chunk(3)
        bias_v = None if qkv_bias is None else qkv_bias.chunk(3)[2]
        q, bias = _project_queries(attention, x[:, :num_queries]), _attention_bias(attention, context, num_positionless)
        bias = None if bias is None else bias[..., :num_queries, :]
        weights = (weight_k, weight_v, bias_v)
        joint_prompts = kv_prompts if gate is None else None
        out = attend_absorbed(q, x, joint_prompts, *weights, scale=attention.scale, bias=bias)
        if gate is not None and kv_prompts is not None:
            prompt_x = kv_prompts if kv_prompts.dim() == 3 else kv_prompts.unsqueeze(0)
            prompt_out = attend_absorbed(q, prompt_x, None, *weights, scale=attention.scale)
            out = out + expand_gate(gate, len(out)).to(out.dtype) * prompt_out
        return _project_output(attention, x, out)

    q, k, v, bias = _prepare_qkv(attention, x, num_queries, num_positionless, context)
    if kv_prompts is None:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=attention.scale)
    else:
        prompts = _expand_kv_groups(attention, *_project_kv(attention, kv_prompts))
        out = attend_with_prompts(q, k, v, *prompts, scale=attention.scale, bias=bias, dropout=dropout, gate=gate)
    return _project_output(attention, x, out)


class KVAttention(nn.Module):
    """Replacement of an attention module that computes its output with `attend`.

    Args:
        attention: The attention module.
        kv_prompts: Module that maps the normalized tokens of the block, (batch, tokens, d), to prompts of their dtype:
            (p, d), (batch, p, d), `GatedPrompts`, or `PromptGroups` of the batch. The prompts may depend on the
            tokens. Default: none.
        num_queries: Number of tokens, from the first, whose output is computed. Default: all.
        num_positionless: Number of tokens after the prefix that have no position in the image. Default: 0.
    """

    def __init__(
        self,
        attention: nn.Module,
        *,
        kv_prompts: nn.Module | None = None,
        num_queries: int | None = None,
        num_positionless: int = 0,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.kv_prompts = kv_prompts
        self.num_queries = num_queries
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
        if not isinstance(kv_prompts, list):
            return self._attend(x, kv_prompts, context)
        chunks = x.split([samples for samples, _ in kv_prompts])
        return torch.cat(
            [self._attend(chunk, prompts, context) for chunk, (_, prompts) in zip(chunks, kv_prompts, strict=True)]
        )

    def _attend(self, x: Tensor, kv_prompts: KVPrompts, context: dict[str, Any]) -> Tensor:
        return attend(
            self.attention,
            x,
            kv_prompts=kv_prompts,
            num_queries=self.num_queries,
            num_positionless=self.num_positionless,
            **context,
        )

    def attention_weights(self, x: Tensor, **context: Any) -> Tensor:
        """Return the attention weights of every token, also where `num_queries` limits the outputs.

        Args:
            x: Tokens (batch, tokens, d), already normalized.
            **context: Further arguments of the block, see `attend`.

        Returns:
            Weights (batch, heads, tokens, tokens + p), prompts last. A row sums to 1; with `GatedPrompts` its tokens
            sum to 1 and its prompts to the gate.
        """
        attention: Any = self.attention
        q, k, _, bias = _prepare_qkv(attention, x, None, self.num_positionless, context)
        scores: Tensor = attention.scale * q @ k.transpose(-2, -1)
        if bias is not None:
            scores = scores + bias
        if self.kv_prompts is None:
            return scores.softmax(-1)
        prompts = self.kv_prompts(x)
        tokens, gate = prompts if isinstance(prompts, GatedPrompts) else (prompts, None)
        prompt_k, _ = _expand_kv_groups(attention, *_project_kv(attention, tokens))
        prompt_scores = attention.scale * q @ prompt_k.transpose(-2, -1)
        if gate is None:
            return torch.cat([scores, prompt_scores], dim=-1).softmax(-1)
        prompt_weights = expand_gate(gate, len(q)) * prompt_scores.softmax(-1)
        return torch.cat([scores.softmax(-1), prompt_weights], dim=-1)


@torch.no_grad()
def matches_reference(attention: nn.Module, x: Tensor, context: dict[str, Any]) -> bool:
    """Compare `attend` with the module's own forward on a real input.

    Args:
        attention: The attention module.
        x: Its input (batch, tokens, d).
        context: Further arguments of the block.

    Returns:
        True if the outputs are equal to rounding; True on the meta device, where tensors have no values.
    """
    try:
        actual, expected = attend(attention, x, **context), attention(x, **context)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False  # another kind of attention: parts are missing or shaped differently
    if actual.shape != expected.shape:
        return False
    tolerance = 1e-4 if x.dtype == torch.float32 else 3e-2
    return actual.is_meta or torch.allclose(actual, expected, rtol=tolerance, atol=tolerance)


def _prepare_qkv(
    attention: Any, x: Tensor, num_queries: int | None, num_positionless: int, context: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return queries, keys, values, and the bias that is added to the scores.

    q is (batch, heads, num_outputs, d/heads), k and v (batch, heads, tokens, d/heads), the bias
    (..., num_outputs, tokens).
    """
    if context.get("is_causal"):
        raise ValueError("causal attention reads tokens in order, which prompts do not have")
    tokens = x.shape[1]
    num_outputs = tokens if num_queries is None else num_queries
    q, k, v = _project_qkv(attention, x, num_outputs)

    rope = context.get("rope")
    if rope is not None:
        k = _apply_rope(attention, k, rope, num_positionless)
        if num_outputs == tokens:
            q = _apply_rope(attention, q, rope, num_positionless)
        elif num_outputs > attention.num_prefix_tokens:
            raise ValueError(
                f"num_queries={num_outputs} must lie within the {attention.num_prefix_tokens} prefix tokens"
            )
        q, k = q.type_as(v), k.type_as(v)

    bias = _attention_bias(attention, context, num_positionless)
    if bias is not None:
        bias = bias[..., :num_outputs, :]

    k, v = _expand_kv_groups(attention, k, v)
    return q, k, v, bias


def _expand_kv_groups(attention: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values for every head, where several heads have one in common."""
    groups = getattr(attention, "num_kv_groups", 1)
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    return k, v


def _project_output(attention: Any, x: Tensor, out: Tensor) -> Tensor:
    """(batch, heads, num_outputs, d/heads) -> (batch, num_outputs, d): what comes after the attention itself."""
    out = out.transpose(1, 2).flatten(2)
    if getattr(attention, "norm", None) is not None:
        out = attention.norm(out)
    if getattr(attention, "gate", None) is not None:
        out = out * attention.gate(x[:, : out.shape[1]]).sigmoid()
    return attention.proj_drop(attention.proj(out))  # type: ignore[no-any-return]


def _fused_qkv(attention: Any) -> tuple[Tensor | None, Tensor | None]:
    """Weight (3d, d) and bias (3d,) of the joint query, key and value projection; None where they are apart."""
    if getattr(attention, "qkv", None) is None:
        return None, None
    bias = attention.qkv.bias
    if _has_separate_biases(attention):
        # EVA and BEiT keep the biases of queries and values apart from the projection; keys have none.
        bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
    return attention.qkv.weight, bias


def _can_absorb(attention: Any, context: dict[str, Any]) -> bool:
    """Whether keys are a linear function of the tokens: no norm and no rotation after their projection."""
    unnormalized = isinstance(getattr(attention, "k_norm", None) or nn.Identity(), nn.Identity)
    fused = getattr(attention, "qkv", None) is not None and getattr(attention, "num_kv_groups", 1) == 1
    return unnormalized and fused and context.get("rope") is None and not context.get("is_causal")


def _has_separate_biases(attention: Any) -> bool:
    return getattr(attention, "q_bias", None) is not None and attention.qkv.bias is None


def _project_qkv(attention: Any, x: Tensor, num_outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return q (batch, heads, num_outputs, d/heads), k, v (batch, heads, tokens, d/heads) of x (batch, tokens, d)."""
    fused = getattr(attention, "qkv", None) is not None
    if fused and num_outputs == x.shape[1] and not _has_separate_biases(attention):
        q, k, v = (_split_heads(attention, rows) for rows in attention.qkv(x).chunk(3, dim=-1))
        return _apply_norm(attention, "q_norm", q), _apply_norm(attention, "k_norm", k), v
    weight, bias = _fused_qkv(attention)
    if weight is not None and num_outputs == x.shape[1]:
        q, k, v = (_split_heads(attention, rows) for rows in F.linear(x, weight, bias).chunk(3, dim=-1))
        return _apply_norm(attention, "q_norm", q), _apply_norm(attention, "k_norm", k), v
    return _project_queries(attention, x[:, :num_outputs]), *_project_kv(attention, x)


def _project_queries(attention: Any, x: Tensor) -> Tensor:
    """Return the queries (batch, heads, tokens, d/heads) of x (batch, tokens, d), without positions."""
    weight, bias = _fused_qkv(attention)
    if weight is None:
        q = attention.q_proj(x)
    else:
        width = weight.shape[0] // 3
        q = F.linear(x, weight[:width], None if bias is None else bias[:width])
    return _apply_norm(attention, "q_norm", _split_heads(attention, q))


def _project_kv(attention: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values (batch or 1, heads, tokens, d/heads) of x ((batch,) tokens, d), without positions."""
    x = x if x.dim() == 3 else x.unsqueeze(0)
    weight, bias = _fused_qkv(attention)
    if weight is None:
        k, v = attention.k_proj(x), attention.v_proj(x)
    else:
        width = weight.shape[0] // 3
        k, v = F.linear(x, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=-1)
    return _apply_norm(attention, "k_norm", _split_heads(attention, k)), _split_heads(attention, v)


def _apply_norm(attention: Any, name: str, x: Tensor) -> Tensor:
    return getattr(attention, name)(x) if hasattr(attention, name) else x


def _split_heads(attention: Any, x: Tensor) -> Tensor:
    """(batch, tokens, width) -> (batch, heads, tokens, width/heads); fewer heads where keys are grouped."""
    heads: Tensor = x.unflatten(-1, (-1, attention.proj.in_features // attention.num_heads))
    return heads.transpose(1, 2)


def _apply_rope(attention: Any, x: Tensor, rope: Tensor, num_positionless: int) -> Tensor:
    """Rotary positions for the image tokens; the prefix and floating tokens stay as they are."""
    num_unrotated = attention.num_prefix_tokens + num_positionless
    rotated: Tensor = apply_rot_embed_cat(x[:, :, num_unrotated:], rope, half=getattr(attention, "rotate_half", False))
    return torch.cat([x[:, :, :num_unrotated], rotated], dim=2)


def _attention_bias(attention: Any, context: dict[str, Any], num_positionless: int) -> Tensor | None:
    """What is added to the scores: relative positions (BEiT) and a mask; zero for floating tokens."""
    bias = context.get("attn_mask")
    if getattr(attention, "relative_position_bias_table", None) is not None:
        rel_pos_bias = attention._get_rel_pos_bias()
        bias = rel_pos_bias if bias is None else bias + rel_pos_bias
    shared_bias = context.get("shared_rel_pos_bias")
    if shared_bias is not None:
        bias = shared_bias if bias is None else bias + shared_bias
    if bias is None or num_positionless == 0:
        return bias
    # Make room after the class token, the one prefix token of every family that has a bias.
    rows = torch.cat(
        [bias[..., :1, :], bias.new_zeros(*bias.shape[:-2], num_positionless, bias.shape[-1]), bias[..., 1:, :]], -2
    )
    return torch.cat([rows[..., :1], rows.new_zeros(*rows.shape[:-1], num_positionless), rows[..., 1:]], -1)
