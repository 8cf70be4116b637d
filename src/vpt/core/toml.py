"""Writing of flat TOML files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_toml(values: Mapping[str, Any]) -> bytes:
    """Return a flat mapping as TOML. None is left out, as TOML has no such value.

    Args:
        values: Keys that are bare TOML keys -> strings, numbers or booleans.

    Returns:
        The text in UTF-8.
    """
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None)
    return "".join(lines).encode()
