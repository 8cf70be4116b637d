"""Operations of a vision transformer, counted by hand: two for each multiply-add of a matrix product or of attention.

n: tokens, the class token among them. d: width. patch: side in px. length: deep prompts per block.
"""

from __future__ import annotations


def forward(n: int, d: int, depth: int, patch: int, batch: int) -> float:
    """The frozen forward pass."""
    return batch * (depth * (24 * n * d * d + 4 * n * n * d) + _embedding(n, d, patch))


def step(n: int, d: int, depth: int, patch: int, length: int, batch: int) -> float:
    """A training step of VPT-deep as vpt computes it: what its identities save is not counted."""
    linear, attention, prompts = 24 * n * d * d, 4 * n * (n + length) * d, 4 * length * d * d
    last = 18 * d * d + 4 * d * d + 8 * n * d  # one query: its projections, its MLP, the tokens it reads
    ahead = batch * (_embedding(n, d, patch) + (depth - 1) * (linear + attention) + last) + (depth - 1) * prompts
    # Backward: the same products once for activations, none for weights; attention makes five products of its two.
    # Nothing below the first block's prompts: not its q, k and v of tokens, not the embedding.
    back = batch * ((depth - 1) * (linear + 2.5 * attention) + last - 6 * n * d * d) + (depth - 1) * prompts
    return ahead + back


def _embedding(n: int, d: int, patch: int) -> float:
    return 2 * (n - 1) * 3 * patch**2 * d
