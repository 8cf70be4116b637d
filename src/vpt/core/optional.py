"""Packages that only some users need: imported where they are used, and missed with a word on how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from vpt.errors import VptError


def import_optional(module: str, extra: str, purpose: str) -> Any:
    """The module, imported. Raises VptError, which names the extra, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # it is there, and broken
        package = module.partition(".")[0]
        raise VptError(f'{purpose} needs {package}, which is not installed; pip install "vpt[{extra}]"') from error
