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

    def fits(self, count: int) -> bool:
        """Return True if these are so many images, and all lie inside of the pixels.

        Args:
            count: Number of images.

        Returns:
            False for positions and shapes of other pixels.
        """
        if self.starts.shape != (count,) or self.shapes.shape != (count, 2):
            return False
        if not all(np.issubdtype(values.dtype, np.integer) for values in (self.starts, self.shapes)):
            return count == 0
        ends = self.starts + 3 * self.shapes.prod(axis=1)
        return bool((self.starts >= 0).all() and (self.shapes > 0).all() and (ends <= len(self.pixels)).all())

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "WholeImages":
        """Return some of the images, in the same array."""
        return replace(self, starts=self.starts[indices], shapes=self.shapes[indices])
