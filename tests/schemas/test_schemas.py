"""The shipped schemas: valid, versioned, and one for each answer of each command."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator

from helpers.command_line import command_names, exit_code, vpt
from helpers.json_answers import schemas_of
from vpt.cli import app
from vpt.errors import ExitCode
from vpt.schemas import read_schema, schema_names

WITHOUT_ANSWER = {"vpt serve", "vpt bench export"}  # a server, and CSV or Parquet


def commands() -> Iterator[tuple[str, click.Command]]:
    for words in command_names():
        command: click.Command = app
        for word in words:
            assert isinstance(command, click.Group)
            command = command.commands[word]
        if not isinstance(command, click.Group):
            yield " ".join(["vpt", *words]), command


def keys(schema: Any) -> Iterator[str]:
    """Names of properties at any depth."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield from schema["properties"]
        for value in schema.values():
            yield from keys(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from keys(value)


@pytest.mark.parametrize("name", schema_names())
def test_schema_of_each_kind_is_valid_and_versioned(name: str) -> None:
    schema = read_schema(name)
    Draft202012Validator.check_schema(schema)
    assert re.fullmatch(rf"urn:vpt:schema:{name}:[1-9]\d*", schema["$id"]) and schema["title"]
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", key) for key in keys(schema))


def test_schemas_of_all_commands_cover_their_answers() -> None:
    found = dict(commands())
    for line, command in found.items():
        has_json = any(option.name == "as_json" for option in command.params)
        assert has_json == (line not in WITHOUT_ANSWER), line
        assert bool(schemas_of(line)) == has_json, line
    named = {line for name in schema_names() for line in read_schema(name)["x-commands"]}
    assert named <= {*found, "vpt"}


def test_schema_command_prints_and_lists_schemas(capsys: pytest.CaptureFixture[str]) -> None:
    vpt("schema", "evaluation")
    assert json.loads(capsys.readouterr().out) == read_schema("evaluation")
    vpt("schema")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == schema_names()
    vpt("schema", "--json")
    assert list(json.loads(capsys.readouterr().out)) == schema_names()
    assert exit_code("schema", "evalution") == ExitCode.USAGE
    assert "did you mean 'evaluation'?" in capsys.readouterr().err
