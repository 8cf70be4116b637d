"""Initialization of prompts at class prototypes, or at tokens of training images."""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpt.errors import SpecError
from vpt.methods.init_inputs import AttentionMeans
from vpt.methods.prompts import Prompts


def copy_prototypes(prompts: Iterable[nn.Module], prototypes: Tensor, method: str) -> None:
    """Set prompt i of every block to the prototype of class i.

    Args:
        prompts: The prompts of each block.
        prototypes: Mean feature of each class (classes, d).
        method: Text of the method, for the message.

    Raises:
        SpecError: There is not one prompt per class.
    """
    for block_prompts in _whole_tokens(prompts):
        if len(prototypes) != block_prompts.length:
            raise SpecError(
                f"{method} begins at class prototypes, one prompt each; with {len(prototypes)} classes, write "
                f"length={len(prototypes)}"
            )
        block_prompts.tokens.copy_(prototypes)


def copy_tokens(prompts: Iterable[nn.Module], tokens: Mapping[int, Tensor], first: int, method: str) -> None:
    """Set the prompts of each block to image tokens that enter it (SPT, Wang et al., ICML 2024).

    Args:
        prompts: The prompts of each block, from the first.
        tokens: Index of a block -> a random sample of its image tokens (n, d).
        first: Index of the first block with prompts, from 0.
        method: Text of the method, for the message.

    Raises:
        SpecError: There are more prompts than tokens.
    """
    for index, block_prompts in enumerate(_whole_tokens(prompts), first):
        sample = tokens[index]
        if len(sample) < block_prompts.length:
            raise SpecError(
                f"{method} begins at tokens of training images, and these have {len(sample)} in all; write "
                f"length={len(sample)} or less"
            )
        # Neighbors in the sample are tokens of one image, so the prompts take one at equal distances.
        block_prompts.tokens.copy_(sample[:: len(sample) // block_prompts.length][: block_prompts.length])


def match_attention(
    prompts: Iterable[nn.Module],
    attention: Mapping[int, AttentionMeans],
    first: int,
    neighbors: int,
    expansion: float,
    method: str,
) -> None:
    """Set the prompts of each block to (1 - expansion) * matched + expansion * outside (VIPAMIN, NeurIPS 2025).

    Matched is the mean of the image tokens whose keys are most similar to the key of the random prompt; outside are
    random vectors of that range, see `leave_row_space`.

    Args:
        prompts: The prompts of each block, from the first, at their random start.
        attention: Index of a block -> means at its attention.
        first: Index of the first block with prompts, from 0.
        neighbors: Number of tokens that a prompt is the mean of.
        expansion: Weight of the part outside the row space.
        method: Text of the method, for the message.

    Raises:
        SpecError: There are fewer tokens than neighbors, or too many for a part outside of their row space.
    """
    for index, block_prompts in enumerate(_whole_tokens(prompts), first):
        means, start = attention[index], block_prompts.tokens.detach()
        num_tokens, (num_outputs, width) = len(means.tokens), means.outputs.shape
        if num_tokens < neighbors:
            raise SpecError(
                f"{method} begins at means of {neighbors} image tokens, and there are {num_tokens}; write "
                f"neighbors={num_tokens} or less"
            )
        similarity = F.normalize(means.project_keys(start), dim=-1) @ F.normalize(means.keys, dim=-1).T
        tokens = (1 - expansion) * means.tokens[similarity.topk(neighbors).indices].mean(1)
        if expansion > 0:
            if num_outputs >= width:
                raise SpecError(
                    f"{method} adds a part outside of what attention puts out, and its {num_outputs} tokens span all "
                    f"{width} channels of this backbone; write expansion=0"
                )
            bound = float(start.abs().max())
            tokens += expansion * leave_row_space(torch.empty_like(start).uniform_(-bound, bound), means)
        block_prompts.tokens.copy_(tokens)


def leave_row_space(vectors: Tensor, means: AttentionMeans) -> Tensor:
    """Return prompts whose values are those of given vectors without the part in the row space of attention's output.

    Args:
        vectors: Vectors (p, d).
        means: Means at the attention of a block.

    Returns:
        The prompts (p, d).
    """
    weight, bias = means.value_weight, means.value_bias
    basis: Tensor = torch.linalg.qr(means.outputs.T.cpu()).Q.to(vectors)  # which Apple's GPUs lack, and so pinv
    values = vectors @ weight.T + bias
    values = values - values @ basis @ basis.T
    # The authors' code does not transpose the inverse, which W^T of the line above would ask for.
    inverse: Tensor = torch.linalg.pinv(weight.cpu()).to(vectors)
    return (values - bias) @ inverse


def _whole_tokens(prompts: Iterable[nn.Module]) -> Iterable[Prompts]:
    for module in prompts:
        assert isinstance(module, Prompts)
        yield module
