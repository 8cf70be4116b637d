"""Operations of a vision transformer, counted by hand: two for each multiply-add of a matrix product or of attention.

num_tokens: tokens, the class token among them. width: of a token. patch: side in px. length: deep prompts per block.
"""

from __future__ import annotations


def forward(num_tokens: int, width: int, depth: int, patch: int, batch: int) -> float:
    """The frozen forward pass."""
    return batch * (
        depth * (24 * num_tokens * width * width + 4 * num_tokens * num_tokens * width)
        + _patch_embedding(num_tokens, width, patch)
    )


def step(num_tokens: int, width: int, depth: int, patch: int, length: int, batch: int) -> float:
    """A training step of VPT-deep as vpt computes it: what its identities save is not counted."""
    linear, attention, prompts = (
        24 * num_tokens * width * width,
        4 * num_tokens * (num_tokens + length) * width,
        4 * length * width * width,
    )
    last_block = (
        18 * width * width + 4 * width * width + 8 * num_tokens * width
    )  # one query: its projections, its MLP, the tokens it reads
    forward_flops = (
        batch * (_patch_embedding(num_tokens, width, patch) + (depth - 1) * (linear + attention) + last_block)
        + (depth - 1) * prompts
    )
    # Backward: the same products once for activations, none for weights; attention makes five products of its two.
    # Nothing below the first block's prompts: not its q, k and v of tokens, not the embedding.
    backward_flops = (
        batch * ((depth - 1) * (linear + 2.5 * attention) + last_block - 6 * num_tokens * width * width)
        + (depth - 1) * prompts
    )
    return forward_flops + backward_flops


def _patch_embedding(num_tokens: int, width: int, patch: int) -> float:
    return 2 * (num_tokens - 1) * 3 * patch**2 * width
