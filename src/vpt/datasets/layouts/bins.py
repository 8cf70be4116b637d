"""Classes of distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vpt.errors import DataError


def bin_index(value: float, edges: Sequence[float]) -> int:
    """Return the k with edges[k] < value <= edges[k + 1] in float32, as the benchmark does. The last bin is unbounded.

    Args:
        value: The distance.
        edges: Lower edge of each bin.

    Returns:
        The index of the bin.

    Raises:
        DataError: The value is below the first edge.
    """
    found = int(np.searchsorted(np.asarray(edges, dtype=np.float32), np.float32(value), side="left")) - 1
    if found < 0:
        raise DataError(f"the distance {value} is below {edges[0]}; download the source again")
    return found
