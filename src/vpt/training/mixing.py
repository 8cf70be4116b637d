"""Mixup and cutmix of the images of a batch, as timm's `Mixup` with one draw for each batch."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Mixing:
    """Mixing of each image of a batch with the one at the same distance from the other end.

    Args:
        mixup_alpha: Parameter of the beta distribution of mixup, or 0 for cutmix alone.
        cutmix_alpha: Parameter of the beta distribution of cutmix, or 0 for mixup alone.
    """

    mixup_alpha: float
    cutmix_alpha: float

    def __call__(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, float]:
        """Mix the images of a batch. With both, each has half of the batches.

        Args:
            images: Images (batch, channels, height, width).
            rng: Random generator.

        Returns:
            The mixed images, and the weight of each image's own label; that of the other image has the rest.
        """
        both = self.mixup_alpha > 0 and self.cutmix_alpha > 0
        cuts = rng.random() < 0.5 if both else self.cutmix_alpha > 0
        alpha = self.cutmix_alpha if cuts else self.mixup_alpha
        own = float(rng.beta(alpha, alpha))
        if not cuts:
            return images * own + images.flip(0) * (1 - own), own
        lengths = images.shape[-2:]
        sides = [int(length * math.sqrt(1 - own)) for length in lengths]
        centers = [int(rng.integers(length)) for length in lengths]
        pairs = list(zip(lengths, sides, centers, strict=True))
        top, left = (min(max(center - side // 2, 0), length) for length, side, center in pairs)
        bottom, right = (min(max(center + (side + 1) // 2, 0), length) for length, side, center in pairs)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images.flip(0)[..., top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / (lengths[0] * lengths[1])
