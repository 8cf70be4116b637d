"""JSON answers of commands, checked against the schemas that are shipped."""

from __future__ import annotations

import importlib
import json
from functools import cache
from typing import Any

import click
from jsonschema import Draft202012Validator

from vpt.schemas import read_schema, schema_names


def to_valid_json(values: Any, indent: int | None = 1) -> str:
    """`vpt.cli.options.to_json`, which fails for an answer that no schema of the command describes."""
    text = json.dumps(values, indent=indent, allow_nan=False)  # JSON has no NaN
    context = click.get_current_context(silent=True)
    if isinstance(values, dict) and "$schema" in values:  # the answer is a schema itself
        Draft202012Validator.check_schema(values)
        return text
    names = ["error"] if context is None else schemas_of(_command_line(context.command))
    assert names, f"no schema names {_command_line(context.command)!r} in x-commands" if context else names
    faults = {name: [error.message for error in closed_validator(name).iter_errors(json.loads(text))] for name in names}
    assert not all(faults.values()), f"{text[:500]}: {faults}"
    return text


def schemas_of(command_line: str) -> list[str]:
    """The schemas of the answers of a command, such as `vpt bench plan`."""
    return [name for name in schema_names() if command_line in read_schema(name)["x-commands"]]


@cache
def closed_validator(name: str, key: str = "") -> Draft202012Validator:
    """A validator of an answer, or of what it has under a key, that accepts no key beyond those of the schema."""
    schema = read_schema(name)
    return Draft202012Validator(_close(schema["properties"][key] if key else schema))


def _command_line(command: click.Command) -> str:
    module = str(getattr(command.callback, "__module__", ""))
    words = ["vpt", module.rpartition(".")[2]]
    if isinstance(importlib.import_module(module).command, click.Group):
        words.append(str(command.name))
    return " ".join(words)


def _close(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_close(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _close(value) for key, value in schema.items()}
    return {"additionalProperties": False, **closed} if isinstance(closed.get("properties"), dict) else closed
