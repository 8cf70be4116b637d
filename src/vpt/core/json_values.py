"""Values as JSON can hold them."""

import math
from typing import Any


def to_finite(values: Any) -> Any:
    """Return JSON values with null for NaN and infinity, which JSON does not have.

    Args:
        values: Numbers, texts, and lists and mappings of them.

    Returns:
        The values; tuples become lists.
    """
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, dict):
        return {key: to_finite(value) for key, value in values.items()}
    return [to_finite(value) for value in values] if isinstance(values, list | tuple) else values
