"""JSON Schemas: one file for each kind of result that commands print with `--json`.

A file is named after its schema. `x-commands` names the commands whose result it describes, and `$id` ends in the
version, which is raised when a key is renamed or removed. New keys may come at any time.
"""

import json
from importlib.resources import files
from typing import Any

from vpt.core.text import did_you_mean
from vpt.errors import SpecError


def schema_names() -> list[str]:
    """Return the names of all schemas in alphabetical order."""
    names = (file.name for file in files(__name__).iterdir())
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def read_schema(name: str) -> dict[str, Any]:
    """Return a schema.

    Args:
        name: Its name, such as "evaluation".

    Returns:
        The JSON Schema, of draft 2020-12.

    Raises:
        SpecError: There is no such schema.
    """
    names = schema_names()
    if name not in names:
        raise SpecError(f"there is no schema {name!r}; {did_you_mean(name, names)}")
    return json.loads(files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
