"""Reading of TOML files that may be of an earlier version."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpt.core.legacy_keys import upgrade_plan_file
from vpt.errors import SpecError


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file with today's keys.

    Args:
        path: The file.

    Returns:
        The tables of a TOML file with today's keys.

    Raises:
        SpecError: The file cannot be read, or is not TOML.
    """
    try:
        values: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not TOML: {error}; correct the file") from error
    return upgrade_plan_file(values)
