"""Properties of the training images that methods can be initialized from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

InitInput = Literal["prototypes", "tokens", "attention", "features"]


@dataclass(frozen=True, eq=False)
class AttentionMeans:
    """Means over training images at the attention of a block.

    Attributes:
        tokens: Image tokens that enter the block (n, d), as the model at its random start computes them.
        keys: Their keys, averaged over the heads (n, d/heads).
        outputs: Weighted values of all tokens of the frozen backbone, before the output projection (m, d).
        project_keys: Function from prompts before the block's norm (p, d) to their keys, alike averaged (p, d/heads).
        value_weight: Weight of the values (d, d).
        value_bias: Bias of the values (d,); zeros where there is none.
    """

    tokens: Tensor
    keys: Tensor
    outputs: Tensor
    project_keys: Callable[[Tensor], Tensor]
    value_weight: Tensor
    value_bias: Tensor


@dataclass(frozen=True, eq=False)
class InitInputs:
    """Properties of the training images that a method can be initialized from.

    Attributes:
        prototypes: Mean feature of each class, (classes, d); None unless the method asks for prototypes.
        tokens: Index of a block, from 0 -> a sample of the image tokens that enter it, (n, d of the block); empty
            unless the method asks for tokens.
        attention: Index of a block, from 0 -> means at its attention; empty unless the method asks for attention.
        features: Features of all blocks (n, width), as the head `multi_block(blocks=all)` reads them with all of its
            features; None unless the method asks for features.
        targets: What the model predicts for these images (n, outputs), 0 or 1 for classes; None as before.
    """

    prototypes: Tensor | None = None
    tokens: Mapping[int, Tensor] = field(default_factory=dict)
    attention: Mapping[int, AttentionMeans] = field(default_factory=dict)
    features: Tensor | None = None
    targets: Tensor | None = None
