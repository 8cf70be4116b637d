"""How prompts begin, if not at random: at class prototypes, or at tokens of training images."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from vpt.errors import SpecError
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


def _whole_tokens(prompts: Iterable[nn.Module]) -> Iterable[Prompts]:
    for module in prompts:
        assert isinstance(module, Prompts)
        yield module
