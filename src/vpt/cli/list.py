"""The command `vpt list`. It imports neither torch nor timm, so that it starts at once."""

from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import click

from vpt.cli.lines import echo_note
from vpt.cli.options import json_option, print_result

_WIDTH = 40  # characters of the name column


@click.command()
@click.argument("what", type=click.Choice(["methods", "backbones", "tasks"]))
@click.argument("pattern", default="")
@json_option
def command(what: str, pattern: str, as_json: bool) -> None:
    """List methods, backbones or tasks whose names match PATTERN.

    Tasks are the built-in ones and those of benchmarks. Backbones are those of timm with published weights.

    \b
    vpt list methods
    vpt list tasks "*count*"
    vpt list backbones "vit_base*"
    """
    from vpt.errors import SpecError

    read, lines = {
        "methods": (_read_methods, _method_lines),
        "backbones": (_read_backbones, _backbone_lines),
        "tasks": (_read_tasks, _task_lines),
    }[what]
    patterns = (pattern or "*", f"{pattern}.*")  # an architecture stands for all its weights
    rows = {name: row for name, row in read().items() if any(fnmatch(name, each) for each in patterns)}
    if not rows:
        raise SpecError(f"no name of {what} matches {pattern!r}; `vpt list {what}` prints all")
    print_result(as_json, rows, lines(rows))


def _read_methods() -> dict[str, Any]:
    """Return the full text, the description and the options of each method."""
    from dataclasses import asdict

    from vpt.cli.method_sources import read_methods
    from vpt.core.spec import format_spec

    return {
        name: {
            "spec": format_spec(kind(), name, full=True, later=True),
            "description": (kind.__doc__ or "").partition("\n")[0],
            "options": asdict(kind()),
        }
        for name, kind in read_methods().items()
    }


def _method_lines(rows: dict[str, Any]) -> Iterator[str]:
    """Yield the methods. The description of a long text goes on a line of its own."""
    width = max((len(row["spec"]) for row in rows.values() if len(row["spec"]) <= _WIDTH), default=0)
    for row in rows.values():
        separator = "  " if len(row["spec"]) <= _WIDTH else f"\n{'':<{width}}  "
        yield f"{row['spec']:<{width}}{separator}{row['description']}"


def _read_backbones() -> dict[str, Any]:
    """Return the size and the license of each backbone; say so if the list is of another timm."""
    from importlib.metadata import version

    from vpt.cli.backbone_list import read_backbones

    (rows, listed), installed = read_backbones(), version("timm")
    if installed != listed:
        echo_note(f"this is the list of timm {listed}; {installed} is installed")
    return rows


def _backbone_lines(rows: dict[str, Any]) -> Iterator[str]:
    """Yield the backbones, each on one line that begins with its name."""
    width = max(map(len, rows))
    for name, row in rows.items():
        size = "" if row["image_size"] is None else f"{row['image_size']} px"
        terms = "embedded, no download" if row["embedded"] else row["license"] or ""
        count = f"{row['parameters'] / 1e6:,.1f} M"
        yield f"{name:<{width}}  {count:>9}  {size:>6}  {terms}".rstrip()


def _read_tasks() -> dict[str, Any]:
    """Return the classes, images and group of the built-in tasks and of those of benchmarks."""
    from vpt.data.synthetic.tasks import TASKS
    from vpt.datasets.catalog import TASKS as BENCHMARK_TASKS

    rows = {
        name: {
            "description": task.description, "classes": len(task.classes), "benchmark": None, "group": None,
            "images": {"train": task.train, "val": task.val, "test": task.test},
        }
        for name, task in TASKS.items()
    }  # fmt: skip
    return rows | {
        name: {
            "description": task.label_description, "classes": task.classes, "benchmark": task.benchmark,
            "group": task.group, "images": task.sizes,
        }
        for name, task in BENCHMARK_TASKS.items()
    }  # fmt: skip


def _task_lines(rows: dict[str, Any]) -> Iterator[str]:
    """Yield the tasks. Those of benchmarks are to be prepared."""
    width = max(map(len, rows))
    for name, row in rows.items():
        facts = row["description"]
        if row["benchmark"] is not None:
            sizes = "/".join("the rest" if size is None else str(size) for size in row["images"].values())
            facts = f"{row['benchmark']}, {row['group']}, {sizes} images; vpt data prepare {name}"
        yield f"{name:<{width}}  {row['classes']} classes: {facts}"
