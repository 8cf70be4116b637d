"""Prompts: learned tokens, and their initial values."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError
from vpt.methods.references import refer

SharedPrompts = Literal["none", "blocks", "prompts", "all"]


class Prompts(nn.Module):
    """Learned tokens, initialized uniform(-init_range, init_range) (paper, section 4).

    Args:
        length: Number of prompts p.
        width: Channels d of a token.
        init_range: Bound of the initial values.
        dropout: Probability that an entry becomes 0 in training, independently per sample.
        num_vectors: 1 for one vector that is repeated p times. Default: p vectors.
        projection: Layer k -> d, for prompts that are learned in a smaller width k. Default: none.
        frozen: Keep the initial values. Default: False.
        num_transformed: Number of prompts, the first, that are replaced by the real part of their two-dimensional
            discrete Fourier transform. Default: 0.
    """

    def __init__(
        self,
        length: int,
        width: int,
        init_range: float,
        dropout: float,
        *,
        num_vectors: int | None = None,
        projection: nn.Linear | None = None,
        frozen: bool = False,
        num_transformed: int = 0,
    ) -> None:
        super().__init__()
        dim = width if projection is None else projection.in_features
        tokens = torch.empty(num_vectors or length, dim).uniform_(-init_range, init_range)
        self.tokens: Tensor
        if frozen:
            self.register_buffer("tokens", tokens)
        else:
            self.tokens = nn.Parameter(tokens)
        self.projection = projection
        self.length = length
        self.num_transformed = num_transformed
        self.dropout: nn.Dropout = nn.Dropout(0.0 if frozen else dropout)

    def forward(self, batch: int) -> Tensor:
        """Return the prompts of a batch.

        Args:
            batch: Number of samples.

        Returns:
            (p, d), the same for all samples, or (batch, p, d) while dropout is applied.
        """
        tokens = self.tokens if self.projection is None else self.projection(self.tokens)
        tokens = tokens.expand(self.length, -1)
        if self.training and self.dropout.p > 0:
            tokens = self.dropout(tokens.expand(batch, -1, -1))
        if self.num_transformed:
            transformed, rest = tokens.tensor_split([self.num_transformed], dim=-2)
            tokens = torch.cat([torch.fft.fft2(transformed.float()).real.to(tokens.dtype), rest], dim=-2)
        return tokens


def xavier_range(patch_size: int, width: int) -> float:
    """Return sqrt(6 / (3 * patch_size^2 + d)), the range of a Xavier-initialized patch projection (paper, section 4).

    Args:
        patch_size: Side of a patch in pixels.
        width: Channels d of a token.

    Returns:
        The bound of the initial values.
    """
    return math.sqrt(6 / (3 * patch_size**2 + width))


def num_prompts(share: float, length: int) -> int:
    """Return the number of prompts that a share stands for, rounded down.

    Args:
        share: The share.
        length: Number of prompts p.

    Returns:
        The number.
    """
    return math.floor(share * length + 1e-9)  # 0.29 * 100 is a little less than 29


def check_share(name: str, share: float, length: int) -> None:
    """Refuse a share that is above 0 and yet no prompt.

    Args:
        name: Name of the option.
        share: The share.
        length: Number of prompts p.

    Raises:
        SpecError: The share is less than one prompt.
    """
    if share > 0 and num_prompts(share, length) == 0:
        raise SpecError(
            f"{name} is {share}, which is less than one of {length} prompts; give "
            f"{math.ceil(1000 / length) / 1000:g} or more, or leave it out"
        )


def make_prompts(
    widths: Sequence[int],
    layout: BackboneLayout,
    length: int,
    *,
    dropout: float = 0.0,
    shared: SharedPrompts = "none",
    projection: int | None = None,
    frozen: bool = False,
    rank: int | None = None,
    fourier: float = 0.0,
) -> list[nn.Module]:
    """Make the prompts of several blocks.

    Args:
        widths: Channels of a token of each block.
        layout: The layout of the backbone.
        length: Number of prompts p of a block.
        dropout: Dropout of the prompts in training. Default: 0.
        shared: Blocks of one width share their prompts ("blocks"), the p prompts of a block are one vector
            ("prompts"), or both ("all"). Default: "none".
        projection: Width in which the prompts are learned, before a linear layer. Default: the block's width.
        frozen: Keep the initial values. Default: False.
        rank: Inner width of prompts that are a product of two matrices of their own. Default: no product.
        fourier: Share of the prompts that are replaced by their Fourier transform, rounded down. Default: 0.

    Returns:
        A module for each block; blocks that share their prompts get the same module.
    """
    num_vectors = 1 if shared in ("prompts", "all") else None
    projections: dict[int, nn.Linear] = {}
    modules: dict[int, nn.Module] = {}
    block_prompts = []
    for index, width in enumerate(widths):
        is_first = width not in projections
        if projection is not None and is_first:
            projections[width] = nn.Linear(projection, width)
            nn.init.kaiming_normal_(projections[width].weight, mode="fan_out")  # as the paper's code does
        layer = projections.get(width) if rank is None else _second_factor(rank, width)
        key = width if shared in ("blocks", "all") else -1 - index
        if key not in modules:
            init_range = xavier_range(layout.patch_size, projection or rank or width)
            modules[key] = Prompts(
                length, width, init_range, dropout, num_vectors=num_vectors, projection=layer, frozen=frozen,
                num_transformed=num_prompts(fourier, length),
            )  # fmt: skip
            if width in projections and not is_first:
                del modules[key].projection
                refer(modules[key], projection=layer)
        block_prompts.append(modules[key])
    return block_prompts


def _second_factor(rank: int, width: int) -> nn.Linear:
    """Return the layer that multiplies A (p, rank) by B (rank, width)."""
    layer = nn.Linear(rank, width, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")  # as a projection begins
    return layer
