"""The parts of timm's self-attention (ViT, EVA, EVA with rotary positions, BEiT, Swin), which name them alike."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn


def project(attention: Any, x: Tensor, names: str, *, hooks: bool = True) -> list[Tensor]:
    """Return queries, keys and values, after their norms and without positions.

    Args:
        attention: The attention module.
        x: Tokens ((batch,) tokens, d), already normalized.
        names: "qkv", "q" or "kv".
        hooks: False calls layers without their hooks, which are for the tokens of the image, once a pass. Default:
            True.

    Returns:
        For each name (batch or 1, heads, tokens, d/heads); of keys and values fewer heads where several have one in
        common.
    """
    x = x if x.dim() == 3 else x.unsqueeze(0)
    projected: Any
    if getattr(attention, "qkv", None) is None:
        projected = [_call(getattr(attention, f"{name}_proj"), x, hooks) for name in names]
    elif names == "qkv" and not _has_separate_biases(attention):
        projected = _call(attention.qkv, x, hooks).chunk(3, dim=-1)
    else:
        weight, bias = fused_qkv(attention)
        width = len(weight) // 3
        rows = slice("qkv".index(names[0]) * width, ("qkv".index(names[-1]) + 1) * width)
        projected = F.linear(x, weight[rows], None if bias is None else bias[rows]).chunk(len(names), dim=-1)
    head_width = attention.proj.in_features // attention.num_heads
    heads = [each.unflatten(-1, (-1, head_width)).transpose(1, 2) for each in projected]
    norms = [getattr(attention, f"{name}_norm", None) for name in names]
    return [each if norm is None else _call(norm, each, hooks) for each, norm in zip(heads, norms, strict=True)]


def _call(layer: nn.Module, x: Tensor, hooks: bool) -> Any:
    return layer(x) if hooks else layer.forward(x)


def fused_qkv(attention: Any) -> tuple[Tensor, Tensor | None]:
    """Return weight (3d, d) and bias (3d,) of the joint projection of queries, keys and values."""
    bias: Tensor | None = attention.qkv.bias
    if _has_separate_biases(attention):
        # EVA and BEiT keep the biases of queries and values apart from the projection; keys have none.
        bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
    return attention.qkv.weight, bias


def expand_kv_groups(attention: Any, *keys_or_values: Tensor) -> list[Tensor]:
    """Return keys or values for every head, where several heads have one in common."""
    groups = getattr(attention, "num_kv_groups", 1)
    return [each.repeat_interleave(groups, dim=1) if groups > 1 else each for each in keys_or_values]


def project_output(attention: Any, x: Tensor, out: Tensor, *, hooks: bool = True) -> Tensor:
    """Compute what comes after the attention itself.

    Args:
        attention: The attention module.
        x: Its input (batch, tokens, d).
        out: Weighted values (batch, heads, n, d/heads) of the first n tokens.
        hooks: False calls layers without their hooks, see `project`. Default: True.

    Returns:
        The output (batch, n, d).
    """
    out = out.transpose(1, 2).flatten(2)
    if getattr(attention, "norm", None) is not None:
        out = _call(attention.norm, out, hooks)
    if getattr(attention, "gate", None) is not None:
        out = out * _call(attention.gate, x[:, : out.shape[1]], hooks).sigmoid()
    return _call(attention.proj_drop, _call(attention.proj, out, hooks), hooks)  # type: ignore[no-any-return]


def rotate(attention: Any, x: Tensor, rope: Tensor, num_positionless: int) -> Tensor:
    """Apply rotary positions to the image tokens of queries or keys; the prefix and positionless tokens stay."""
    num_unrotated = attention.num_prefix_tokens + num_positionless
    options = {"half": True} if getattr(attention, "rotate_half", False) else {}  # timm 1.0.15 knows no halves
    rotated: Tensor = apply_rot_embed_cat(x[:, :, num_unrotated:], rope, **options)
    return torch.cat([x[:, :, :num_unrotated], rotated], dim=2)


def score_bias(attention: Any, context: dict[str, Any], num_positionless: int) -> Tensor | None:
    """Return what is added to the scores: relative positions (BEiT) and a mask; zero for positionless tokens."""
    terms = [context.get("attn_mask"), context.get("shared_rel_pos_bias")]
    if getattr(attention, "relative_position_bias_table", None) is not None:
        terms.insert(1, attention._get_rel_pos_bias())
    given = [term for term in terms if term is not None]
    if not given:
        return None
    bias: Tensor = sum(given[1:], start=given[0])
    if num_positionless == 0:
        return bias
    # Make room after the class token, the one prefix token of every family that has a bias.
    room = bias.new_zeros(*bias.shape[:-2], num_positionless, bias.shape[-1])
    rows = torch.cat([bias[..., :1, :], room, bias[..., 1:, :]], -2)
    return torch.cat([rows[..., :1], rows.new_zeros(*rows.shape[:-1], num_positionless), rows[..., 1:]], -1)


def _has_separate_biases(attention: Any) -> bool:
    return getattr(attention, "q_bias", None) is not None and attention.qkv.bias is None
