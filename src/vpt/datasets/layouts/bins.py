"""Classes of distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vpt.errors import DataError


def bin_index(value: float, edges: Sequence[float]) -> int:
    """The k with edges[k] < value <= edges[k + 1], in float32 as the benchmark computes it; the last bin is open."""
    found = int(np.searchsorted(np.asarray(edges, dtype=np.float32), np.float32(value), side="left")) - 1
    if found < 0:
        raise DataError(f"the distance {value} lies below {edges[0]}; the source is not what it should be")
    return found
