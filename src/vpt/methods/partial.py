"""Partial-k: the last k blocks train (paper, section 4, baseline "Partial-k")."""

from dataclasses import dataclass

from torch import nn

from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError, UnsupportedError
from vpt.methods.base import Injection, Method


@dataclass(frozen=True)
class Partial(Method, name="partial", optimizer="adamw", learning_rate=5e-4, identity_at_init=True):
    """The last `k` blocks train, the merging of patches between them, and the norm after them.

    Args:
        k: Number of blocks. Default: 1.
    """

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SpecError(f"k is {self.k}; at least one block must train (the head alone: `linear`)")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan to train the last `k` blocks and the final norms; raise UnsupportedError if there are fewer blocks."""
        if not layout.blocks:
            raise UnsupportedError(f"the blocks of {type(trunk).__name__} are not known")
        if self.k > len(layout.blocks):
            raise UnsupportedError(
                f"k is {self.k}, but there are {len(layout.blocks)} blocks (all of them and the rest: `full`)"
            )
        trained = layout.blocks[-self.k :]
        # A merging of patches comes before the first block of its stage.
        stages = {path: f"{path.rpartition('.')[0]}." for path in layout.downsamples}
        first = {path: next(block for block in layout.blocks if block.startswith(stages[path])) for path in stages}
        merges = (path for path, block in first.items() if block in trained[1:])
        return Injection(trainable=(*trained, *merges, *layout.final_norms))
