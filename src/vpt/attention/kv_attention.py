"""Attention with more keys than queries: what makes visual prompts cost nothing.

timm's four kinds of self-attention (ViT, EVA, EVA with rotary positions, BEiT) name their parts alike. `attend`
reads those parts and computes the very same function, with three freedoms the original lacks:

- `extra`: tokens that serve as keys and values only. In VPT-deep the output of a prompt is never read, so a
  prompt needs neither query nor output (first identity).
- `queries`: compute the answer for the first few tokens only. Where the head reads CLS alone, so does the
  last block (second identity). So few queries need no keys and values either (`absorbed.py`).
- `floating`: tokens after the prefix that have no place in the image, so neither rotary position nor relative
  bias; VPT-shallow's prompts are such.

`attend` is used only after `explains` has compared it with the module's own forward on the module's own input.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn

from vpt.attention.absorbed import attend_absorbed
from vpt.attention.joint_attention import attend_beside

# How many samples in turn, and the further tokens of those: (p, d), (samples, p, d), or None.
Parts = tuple[tuple[int, Tensor | None], ...]


def attend(
    attention: nn.Module,
    x: Tensor,
    *,
    extra: Tensor | None = None,
    queries: int | None = None,
    floating: int = 0,
    **context: Any,
) -> Tensor:
    """Self-attention of `attention` over x, exactly as its own forward computes it, plus the freedoms above.

    x: (batch, tokens, d), already normalised. extra: (p, d) or (batch, p, d), already normalised.
    context: what the block passes along: `rope`, `attn_mask`, `shared_rel_pos_bias`.
    Returns (batch, queries or tokens, d).
    """
    part: Any = attention
    dropout = part.attn_drop.p if part.training else 0.0
    if queries is not None and dropout == 0 and _absorbs(part, context):
        weight, own = _fused(part)
        assert weight is not None
        _, of_keys, of_values = weight.chunk(3)
        value_bias = None if own is None else own.chunk(3)[2]
        q, bias = _project_queries(part, x[:, :queries]), _bias(part, context, floating)
        bias = None if bias is None else bias[..., :queries, :]
        out = attend_absorbed(q, x, extra, of_keys, of_values, value_bias, scale=part.scale, bias=bias)
        return _finish(part, x, out)

    q, k, v, bias = _meet(part, x, queries, floating, context)
    if extra is None:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=part.scale)
    else:
        prompts = _shared_out(part, *_project_keys(part, extra))
        out = attend_beside(q, k, v, *prompts, scale=part.scale, bias=bias, dropout=dropout)
    return _finish(part, x, out)


class Attend(nn.Module):
    """Stands where an attention module stood, and answers through `attend`.

    extra: a module that maps x (batch, tokens, d) to further tokens of its dtype, (p, d) or (batch, p, d), which
        serve as keys and values only; or to `Parts` of the batch, each with tokens of its own number, or with none.
    """

    def __init__(
        self,
        attention: nn.Module,
        *,
        extra: nn.Module | None = None,
        queries: int | None = None,
        floating: int = 0,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.extra = extra
        self.queries = queries
        self.floating = floating

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        extra: Tensor | Parts | None = None if self.extra is None else self.extra(x)
        if not isinstance(extra, tuple):
            return self._answer(x, extra, context)
        pieces = x.split([rows for rows, _ in extra])
        return torch.cat([self._answer(piece, own, context) for piece, (_, own) in zip(pieces, extra, strict=True)])

    def _answer(self, x: Tensor, extra: Tensor | None, context: dict[str, Any]) -> Tensor:
        return attend(self.attention, x, extra=extra, queries=self.queries, floating=self.floating, **context)

    def weights(self, x: Tensor, **context: Any) -> Tensor:
        """How much each token takes of each: (batch, heads, tokens, tokens + p), rows sum to 1; extra tokens last.

        Of every token, also where `queries` answers for the first few alone.
        """
        part: Any = self.attention
        q, k, _, bias = _meet(part, x, None, self.floating, context)
        scores: Tensor = part.scale * q @ k.transpose(-2, -1)
        if bias is not None:
            scores = scores + bias
        if self.extra is not None:
            prompt_k, _ = _shared_out(part, *_project_keys(part, self.extra(x)))
            scores = torch.cat([scores, part.scale * q @ prompt_k.transpose(-2, -1)], dim=-1)
        return scores.softmax(-1)


@torch.no_grad()
def explains(attention: nn.Module, x: Tensor, context: dict[str, Any]) -> bool:
    """Whether `attend` computes what this attention computes, tried on a real input of it.

    True without a trial where tensors hold no values (meta device).
    """
    try:
        ours, theirs = attend(attention, x, **context), attention(x, **context)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False  # another kind of attention: parts are missing or shaped differently
    if ours.shape != theirs.shape:
        return False
    tolerance = 1e-4 if x.dtype == torch.float32 else 3e-2
    return ours.is_meta or torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def _meet(
    part: Any, x: Tensor, queries: int | None, floating: int, context: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What `attend` and `Attend.weights` have in common: queries, keys and values, and what is added to the scores.

    q is (batch, heads, answered, d/heads), k and v (batch, heads, tokens, d/heads), the bias (..., answered, tokens).
    """
    if context.get("is_causal"):
        raise ValueError("causal attention reads tokens in order, which prompts do not have")
    tokens = x.shape[1]
    answered = tokens if queries is None else queries
    q, k, v = _project(part, x, answered)

    rope = context.get("rope")
    if rope is not None:
        k = _rotate(part, k, rope, floating)
        if answered == tokens:
            q = _rotate(part, q, rope, floating)
        elif answered > part.num_prefix_tokens:
            raise ValueError(f"queries={answered} must lie within the {part.num_prefix_tokens} prefix tokens")
        q, k = q.type_as(v), k.type_as(v)

    bias = _bias(part, context, floating)
    if bias is not None:
        bias = bias[..., :answered, :]

    k, v = _shared_out(part, k, v)
    return q, k, v, bias


def _shared_out(part: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values for every head, where several heads have one in common."""
    groups = getattr(part, "num_kv_groups", 1)
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    return k, v


def _finish(part: Any, x: Tensor, out: Tensor) -> Tensor:
    """(batch, heads, answered, d/heads) -> (batch, answered, d): what comes after the attention itself."""
    out = out.transpose(1, 2).flatten(2)
    if getattr(part, "norm", None) is not None:
        out = part.norm(out)
    if getattr(part, "gate", None) is not None:
        out = out * part.gate(x[:, : out.shape[1]]).sigmoid()
    return part.proj_drop(part.proj(out))  # type: ignore[no-any-return]


def _fused(part: Any) -> tuple[Tensor | None, Tensor | None]:
    """Weight (3d, d) and bias (3d,) of the joint query, key and value projection; None where they are apart."""
    if getattr(part, "qkv", None) is None:
        return None, None
    bias = part.qkv.bias
    if _biases_apart(part):
        # EVA and BEiT keep the biases of queries and values apart from the projection; keys have none.
        bias = torch.cat([part.q_bias, torch.zeros_like(part.q_bias), part.v_bias])
    return part.qkv.weight, bias


def _absorbs(part: Any, context: dict[str, Any]) -> bool:
    """Whether keys are a linear function of the tokens: no norm and no rotation after their projection."""
    plain = isinstance(getattr(part, "k_norm", None) or nn.Identity(), nn.Identity)
    fused = getattr(part, "qkv", None) is not None and getattr(part, "num_kv_groups", 1) == 1
    return plain and fused and context.get("rope") is None and not context.get("is_causal")


def _biases_apart(part: Any) -> bool:
    return getattr(part, "q_bias", None) is not None and part.qkv.bias is None


def _project(part: Any, x: Tensor, answered: int) -> tuple[Tensor, Tensor, Tensor]:
    """x (batch, tokens, d) -> q (batch, heads, answered, d/heads), k and v (batch, heads, tokens, d/heads)."""
    fused = getattr(part, "qkv", None) is not None
    if fused and answered == x.shape[1] and not _biases_apart(part):
        q, k, v = (_heads(part, rows) for rows in part.qkv(x).chunk(3, dim=-1))
        return _normed(part, "q_norm", q), _normed(part, "k_norm", k), v
    weight, bias = _fused(part)
    if weight is not None and answered == x.shape[1]:
        q, k, v = (_heads(part, rows) for rows in F.linear(x, weight, bias).chunk(3, dim=-1))
        return _normed(part, "q_norm", q), _normed(part, "k_norm", k), v
    return _project_queries(part, x[:, :answered]), *_project_keys(part, x)


def _project_queries(part: Any, x: Tensor) -> Tensor:
    """x (batch, tokens, d) -> queries alone (batch, heads, tokens, d/heads), no position applied."""
    weight, bias = _fused(part)
    if weight is None:
        q = part.q_proj(x)
    else:
        width = weight.shape[0] // 3
        q = F.linear(x, weight[:width], None if bias is None else bias[:width])
    return _normed(part, "q_norm", _heads(part, q))


def _project_keys(part: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """x ((batch,) tokens, d) -> keys and values (batch or 1, heads, tokens, d/heads), no position applied."""
    x = x if x.dim() == 3 else x.unsqueeze(0)
    weight, bias = _fused(part)
    if weight is None:
        k, v = part.k_proj(x), part.v_proj(x)
    else:
        width = weight.shape[0] // 3
        k, v = F.linear(x, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=-1)
    return _normed(part, "k_norm", _heads(part, k)), _heads(part, v)


def _normed(part: Any, name: str, x: Tensor) -> Tensor:
    return getattr(part, name)(x) if hasattr(part, name) else x


def _heads(part: Any, x: Tensor) -> Tensor:
    """(batch, tokens, width) -> (batch, heads, tokens, width/heads); fewer heads where keys are grouped."""
    heads: Tensor = x.unflatten(-1, (-1, part.proj.in_features // part.num_heads))
    return heads.transpose(1, 2)


def _rotate(part: Any, x: Tensor, rope: Tensor, floating: int) -> Tensor:
    """Rotary positions for the image tokens; the prefix and floating tokens stay as they are."""
    still = part.num_prefix_tokens + floating
    turned: Tensor = apply_rot_embed_cat(x[:, :, still:], rope, half=getattr(part, "rotate_half", False))
    return torch.cat([x[:, :, :still], turned], dim=2)


def _bias(part: Any, context: dict[str, Any], floating: int) -> Tensor | None:
    """What is added to the scores: relative positions (BEiT) and a mask; zero for floating tokens."""
    bias = context.get("attn_mask")
    if getattr(part, "relative_position_bias_table", None) is not None:
        own = part._get_rel_pos_bias()
        bias = own if bias is None else bias + own
    shared = context.get("shared_rel_pos_bias")
    if shared is not None:
        bias = shared if bias is None else bias + shared
    if bias is None or floating == 0:
        return bias
    # Make room after the class token, the one prefix token of every family that has a bias.
    rows = torch.cat(
        [bias[..., :1, :], bias.new_zeros(*bias.shape[:-2], floating, bias.shape[-1]), bias[..., 1:, :]], -2
    )
    return torch.cat([rows[..., :1], rows.new_zeros(*rows.shape[:-1], floating), rows[..., 1:]], -1)
