"""Attention of one or a few queries without forming a single key or value.

q (W_k x) = (q W_k) x, and the sum of a W_v x is W_v (the sum of a x): for few queries it is far cheaper to carry the
weights over to their side than to project every token. Exact by associativity. A bias of the keys adds the same to
every score of a query, so it falls out of the softmax; weights sum to 1, so a bias of the values is added once.
"""

import torch
from torch import Tensor


def attend_absorbed(
    q: Tensor,
    x: Tensor,
    kv_prompts: Tensor | None,
    weight_k: Tensor,
    weight_v: Tensor,
    bias_v: Tensor | None,
    *,
    scale: float,
    bias: Tensor | None = None,
) -> Tensor:
    """softmax(scale * q [keys of x, keys of kv_prompts]^T + [bias, 0]) [values of x, values of kv_prompts].

    q: (batch, heads, a, k). x: (batch, n, d), normalized. kv_prompts: (p, d) or (batch, p, d), normalized, or None.
    weight_k, weight_v: (heads * k, d). bias_v: (heads * k,) or None. bias: broadcast to (batch, heads, a, n).
    Returns (batch, heads, a, k).
    """
    heads, n = q.shape[1], x.shape[1]
    absorbed_q = torch.einsum("bhak,hkd->bhad", q, weight_k.unflatten(0, (heads, -1))).to(x.dtype) * scale
    query_rows = absorbed_q.flatten(1, 2)
    scores = (query_rows @ x.transpose(-2, -1)).unflatten(1, (heads, -1))
    if bias is not None:
        scores = scores + bias
    if kv_prompts is not None:
        scores = torch.cat([scores, (query_rows @ kv_prompts.transpose(-2, -1)).unflatten(1, (heads, -1))], dim=-1)
    softmax_dtype = torch.promote_types(scores.dtype, torch.float32)
    weights = scores.softmax(-1, dtype=softmax_dtype).to(x.dtype).flatten(1, 2)
    weighted_sum = weights[..., :n] @ x
    if kv_prompts is not None:
        weighted_sum = weighted_sum + weights[..., n:] @ kv_prompts
    out = torch.einsum("bhad,hkd->bhak", weighted_sum.unflatten(1, (heads, -1)), weight_v.unflatten(0, (heads, -1)))
    return out if bias_v is None else out + bias_v.unflatten(0, (heads, 1, -1))
