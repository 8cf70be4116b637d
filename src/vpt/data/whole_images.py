"""Images that keep their shapes, in one array: what random crops are taken from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class WholeImages:
    """Images of several shapes, one after the other.

    Attributes:
        pixels: All images, uint8 (bytes,), as an array or a tensor.
        starts: Position of each image in `pixels`, int64 (n,).
        shapes: Height and width of each image, int64 (n, 2).
    """

    pixels: Any
    starts: NDArray[np.int64]
    shapes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.starts)

    def __getitem__(self, index: int) -> Any:
        """Return one image, uint8 (3, height, width), without a copy."""
        start, shape = self.starts[index], (3, *map(int, self.shapes[index]))
        return self.pixels[start : start + math.prod(shape)].reshape(shape)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "WholeImages":
        """Return some of the images, in the same array."""
        return replace(self, starts=self.starts[indices], shapes=self.shapes[indices])
