"""Results on stdout: JSON for programs, lines of text for people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click


def print_result(as_json: bool, values: Any, lines: Iterable[str]) -> None:
    """Print a result.

    Args:
        as_json: True prints JSON.
        values: The result as JSON values.
        lines: The result as lines of text. They are read only if they are printed.
    """
    for line in [json.dumps(values, indent=1)] if as_json else lines:
        click.echo(line)
