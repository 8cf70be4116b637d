"""The command `vpt list`."""

from __future__ import annotations

import json
from fnmatch import fnmatch

import click

_WIDTH = 40  # characters of the name column


@click.command()
@click.argument("what", type=click.Choice(["methods", "backbones", "tasks"]))
@click.argument("pattern", default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(what: str, pattern: str, as_json: bool) -> None:
    """List methods, backbones or tasks (built-in ones and those of benchmarks) whose names match PATTERN.

    \b
    vpt list methods
    vpt list tasks "*count*"
    vpt list backbones "vit_base*"
    """
    from vpt.errors import SpecError

    rows = {"methods": _methods, "backbones": _backbones, "tasks": _tasks}[what](pattern or "*")
    if not rows:
        raise SpecError(f"no name of {what} matches {pattern!r}; `vpt list {what}` prints all")
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    # The description of a long name, such as a method with all its options, goes on a line of its own.
    width = max((len(name) for name in rows if len(name) <= _WIDTH), default=0)
    for name, description in rows.items():
        separator = "  " if len(name) <= _WIDTH else f"\n{'':<{width}}  "
        click.echo(f"{name:<{width}}{separator}{description}" if description else name)


def _methods(pattern: str) -> dict[str, str]:
    from vpt.core import spec
    from vpt.methods import METHODS

    lines = {}
    for name, kind in METHODS.items():
        if not fnmatch(name, pattern):
            continue
        text = spec.format_spec(kind(), name, full=True)
        lines[text] = (kind.__doc__ or "").strip().splitlines()[0]
    return lines


def _backbones(pattern: str) -> dict[str, str]:
    from vpt.backbones import DEFAULT, list_backbones

    return {name: "embedded, no download" if name == DEFAULT else "" for name in list_backbones(pattern)}


def _tasks(pattern: str) -> dict[str, str]:
    from vpt.data.synthetic import TASKS
    from vpt.datasets.catalog import TASKS as BENCHMARK_TASKS

    built_in = {name: f"{len(task.classes)} classes: {task.description}" for name, task in TASKS.items()}
    prepared = {
        name: f"{task.classes} classes: {task.benchmark}, {task.group}, {task.sizes_text} images; "
        f"vpt data prepare {name}"
        for name, task in BENCHMARK_TASKS.items()
    }
    return {name: line for name, line in {**built_in, **prepared}.items() if fnmatch(name, pattern)}
