"""The command `vpt list`."""

from collections.abc import Iterator
from fnmatch import fnmatch

import click

from vpt.cli.options import json_option, print_result

_WIDTH = 40  # characters of the name column


@click.command()
@click.argument("what", type=click.Choice(["methods", "backbones", "tasks"]))
@click.argument("pattern", default="")
@json_option
def command(what: str, pattern: str, as_json: bool) -> None:
    """List methods, backbones or tasks whose names match PATTERN.

    Tasks are the built-in ones and those of benchmarks.

    \b
    vpt list methods
    vpt list tasks "*count*"
    vpt list backbones "vit_base*"
    """
    from vpt.errors import SpecError

    rows = {"methods": _methods, "backbones": _backbones, "tasks": _tasks}[what](pattern or "*")
    if not rows:
        raise SpecError(f"no name of {what} matches {pattern!r}; `vpt list {what}` prints all")
    print_result(as_json, rows, _lines(rows))


def _lines(rows: dict[str, str]) -> Iterator[str]:
    """Yield rows. The description of a long name, such as a method with all options, goes on a line of its own."""
    width = max((len(name) for name in rows if len(name) <= _WIDTH), default=0)
    for name, description in rows.items():
        separator = "  " if len(name) <= _WIDTH else f"\n{'':<{width}}  "
        yield f"{name:<{width}}{separator}{description}" if description else name


def _methods(pattern: str) -> dict[str, str]:
    from vpt.core import spec
    from vpt.methods import METHODS

    return {
        spec.format_spec(kind(), name, full=True): (kind.__doc__ or "").strip().partition("\n")[0]
        for name, kind in METHODS.items()
        if fnmatch(name, pattern)
    }


def _backbones(pattern: str) -> dict[str, str]:
    from vpt.backbones import DEFAULT, list_backbones

    return {name: "embedded, no download" if name == DEFAULT else "" for name in list_backbones(pattern)}


def _tasks(pattern: str) -> dict[str, str]:
    from vpt.data.synthetic import TASKS
    from vpt.datasets.catalog import TASKS as BENCHMARK_TASKS

    lines = {name: f"{len(task.classes)} classes: {task.description}" for name, task in TASKS.items()}
    for name, task in BENCHMARK_TASKS.items():
        facts = f"{task.classes} classes: {task.benchmark}, {task.group}, {task.sizes_text} images"
        lines[name] = f"{facts}; vpt data prepare {name}"
    return {name: line for name, line in lines.items() if fnmatch(name, pattern)}
