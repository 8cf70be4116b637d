"""Tables in the docs that repeat the code: exit codes, methods, old and new names."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import click
from pages import ROOT

import vpt
from vpt.cli import app
from vpt.errors import ExitCode, VptError

DOCS = ROOT / "docs"


def rows(page: Path, heading: str = "") -> list[list[str]]:
    """Cells of the table rows of a page, or of the part of it below a heading."""
    text = page.read_text(encoding="utf-8").partition(heading)[2] if heading else page.read_text(encoding="utf-8")
    text = re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0] if heading else text
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|--")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[1:]]


def options(command: click.Command) -> set[str]:
    """Names of the options of a command and of those below it."""
    names = {name for parameter in command.params for name in parameter.opts}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            names |= options(below)
    return names


def test_exit_codes_table_equals_the_enum() -> None:
    table = rows(DOCS / "reference" / "exit-codes.md")
    assert [(int(row[0]), row[1].strip("`")) for row in table] == [(code.value, code.name) for code in ExitCode]
    raised = {kind.__name__: kind.exit_code for kind in VptError.__subclasses__() if kind.__module__ == "vpt.errors"}
    for code, _, exception, _ in table:
        if (name := exception.strip("`")) in raised:
            assert raised.pop(name) == int(code)
    assert not raised, f"no row names {', '.join(raised)}"


def test_methods_page_names_every_method() -> None:
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    tables = text.partition("## Options")[0]
    named = set(re.findall(r"^\|.*?`(\w+)[(`]", tables, re.MULTILINE)) | set(re.findall(r"`(\w+)`", tables))
    missing = set(vpt.METHODS) - named
    assert not missing, f"add a row for {', '.join(sorted(missing))} to docs/methods.md"


def test_methods_page_names_every_option_of_vpt() -> None:
    table = rows(DOCS / "methods.md", "## Options of `vpt(...)`")
    assert {row[0].strip("`") for row in table if row[0].startswith("`")} == {
        field.name for field in dataclasses.fields(vpt.VPT)
    }


def test_renames_new_options_exist_and_old_ones_do_not() -> None:
    known = options(app)
    for old, new in rows(DOCS / "reference" / "renames.md", "## Commands and options"):
        for option in re.findall(r"--[\w-]+", new):
            assert option in known, f"{option} is no option"
        for option in set(re.findall(r"--[\w-]+", old)) - set(re.findall(r"--[\w-]+", new)):
            assert option not in known, f"{option} still is an option"


def test_renames_new_python_names_exist() -> None:
    import importlib

    for _, new in rows(DOCS / "reference" / "renames.md", "## Python"):
        for name in re.findall(r"`(vpt(?:\.\w+)+)`", new):
            module, _, attribute = name.rpartition(".")
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(module), attribute), f"{name} does not exist"


def test_readme_backbones_table_names_every_method() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Methods and backbones")[2]
    header = text.strip().splitlines()[0]
    named = set(re.findall(r"`(\w+)`", header))
    missing, unknown = set(vpt.METHODS) - named, named - set(vpt.METHODS)
    assert not missing, f"add {', '.join(sorted(missing))} to a column of the table of methods in README.md"
    assert not unknown, f"README.md names {', '.join(sorted(unknown))}, which is no method"


def test_extras_in_the_docs_are_declared() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        for named in re.findall(r"pip install (?:-e )?\"\.\[([\w,]+)\]\"", page.read_text(encoding="utf-8")):
            assert set(named.split(",")) <= set(extras), f"{page.name} names {named}"


def test_version_is_the_last_release_or_a_later_development_version() -> None:
    released = re.findall(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    assert f"version: {released}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert vpt.__version__ == released or (vpt.__version__ > released and vpt.__version__.endswith(".dev0"))
