"""Imports of packages that only some features need."""

import importlib
from typing import Any

from vpt.errors import VptError


def install_hint(extra: str) -> str:
    """Return the command that installs an extra.

    Args:
        extra: Name of the extra in pyproject.toml.

    Returns:
        The command, for the end of an error message.
    """
    return f'in a checkout of visual-prompt-tuning: pip install ".[{extra}]"'


def import_optional(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: Dotted name of the module.
        extra: The extra of this distribution that installs the package.
        purpose: The feature that needs the package, for the error message.

    Returns:
        The imported module.

    Raises:
        VptError: The package is not installed. The message names the extra.
        ModuleNotFoundError: The package is installed, but a module that it imports is not.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the package is installed, but broken
        package = module.partition(".")[0]
        raise VptError(f"{purpose} needs {package}, which is not installed; {install_hint(extra)}") from error
